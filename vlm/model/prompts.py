"""Conversation -> token ids with the places of visual tokens, and batches of them. Pure functions of the tokenizer.

The chat template's own text is used, split where a picture stands: visual tokens go between the embedded parts, with no
placeholder token in the vocabulary, so any number of them fits. What people type is tokenised with the control tokens
switched off where it spells one, so that "<|im_end|>" in a question is just text.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError
from torch import Tensor

from vlm.errors import UserError

IGNORE = -100  # label of a position that is not learned (the convention of torch's cross_entropy)
VISUAL = -1  # in `Encoded.ids`: a visual token stands here
# Private-use characters that stand for contents while a template is split
USER, ASSISTANT, SYSTEM = "\ue000", "\ue001", "\ue002"
# Whether control tokens are split is state of a tokenizer: of two threads, one would read with the other's setting
_TOKENISING = threading.Lock()


@dataclass(frozen=True)
class PromptTurn:
    """One question, its answer ("" for the one to come), and the tags of each picture shown before the question."""

    question: str
    answer: str = ""
    picture_tags: tuple[str, ...] = ()


class Encoded(NamedTuple):
    """`ids` with VISUAL where a visual token stands; `labels` are the ids to learn, IGNORE elsewhere."""

    ids: list[int]
    labels: list[int]


class Batch(NamedTuple):
    """All [B, T]. `visual_mask` is True where the visual tokens go, in reading order; `input_ids` there is padding."""

    input_ids: Tensor
    visual_mask: Tensor
    attention_mask: Tensor
    labels: Tensor


def encode(
    tokenizer: Any, turns: Sequence[PromptTurn], tokens_per_picture: int, system: str | None = None
) -> Encoded:
    """The conversation as the model reads it. Answers and their end-of-turn token are the labels; when the last turn
    has no answer yet the ids end where the model is to begin it."""
    ids: list[int] = []
    labels: list[int] = []

    def add(new: list[int], learn: bool) -> None:
        ids.extend(new)
        labels.extend(new if learn else [IGNORE] * len(new))

    if not all(turn.answer for turn in turns[:-1]):
        raise UserError("An earlier question has no answer. Leave it out, or give its answer.")
    control = tuple(control_tokens(tokenizer).values())
    apart = any(each in (system or "") for each in (*control, USER, ASSISTANT, SYSTEM))
    spaced = tuple(f" {token}" for token in control)
    frame = template_frame(tokenizer, len(turns), bool(turns[-1].answer), SYSTEM if apart else system)
    for place, (turn, (before_user, before_answer, after_answer)) in enumerate(
        zip(turns, frame, strict=True)
    ):
        before, words, behind_system = before_user, "", False
        if apart and SYSTEM in before:
            head, before = before.split(SYSTEM)
            add(_control(tokenizer, head, before_words=True) + text_ids(tokenizer, system or ""), learn=False)
            behind_system = True
        for tags in turn.picture_tags:
            add(_together(tokenizer, before, words, "", behind_system), learn=False)
            add([VISUAL] * tokens_per_picture, learn=False)
            before, words, behind_system = "", f"\nTags: {tags}.\n" if tags else "\n", False
        asked = words + turn.question.strip()
        add(_together(tokenizer, before, asked, before_answer, behind_system, before_words=True), learn=False)
        if turn.answer:
            answer = turn.answer.strip()
            if after_answer.startswith(spaced):
                answer, after_answer = f"{answer} ", after_answer[1:]  # as Llama 2's
            asked_on = place + 1 < len(turns) and not turns[place + 1].picture_tags
            ending = _control(tokenizer, after_answer, behind_words=True, before_words=asked_on)
            # learn where to stop as well
            add(text_ids(tokenizer, answer) + ending[:1], learn=True)
            add(ending[1:], learn=False)
    return Encoded(ids, labels)


def segments(ids: Sequence[int], visual_tokens: Sequence[Tensor]) -> list[list[int] | Tensor]:
    """Ids with VISUAL in them, and the visual tokens [K, Dl] of each picture in order -> a prompt for an engine: runs of
    ids, and each picture's visual tokens where its marks stand."""
    runs: list[list[int] | Tensor] = []
    marks = ids.count(VISUAL) // len(visual_tokens) if visual_tokens else 0  # of one picture
    waiting = iter(visual_tokens)
    for visual, run in groupby(ids, key=lambda id: id == VISUAL):
        same = list(run)
        runs += islice(waiting, len(same) // marks) if visual else [same]
    return runs


def template_frame(
    tokenizer: Any, turn_count: int, answered: bool, system: str | None
) -> list[tuple[str, str, str]]:
    """The template's text around each turn: before the question, between question and answer, after the answer.

    The template is rendered with private-use characters for contents and split at them, so whatever a template puts
    around its messages (system prompts, line ends, headers) is kept as it is. What stands before the last answer is what
    stands there when it is to come: some templates (Qwen3's) put more before one that is there, which is never served.
    """
    if not tokenizer.chat_template:
        return _plain_frame(tokenizer, turn_count, system)
    question, answer = {"role": "user", "content": USER}, {"role": "assistant", "content": ASSISTANT}
    messages = [{"role": "system", "content": system}] if system else []
    messages += [question, answer] * turn_count
    *earlier, (before, before_answer, after) = _split(_render(tokenizer, messages[:-1], True))
    if answered:
        *_, (_, _, after) = _split(_render(tokenizer, messages, False))
    return [*earlier, (before, before_answer, after)]


def _split(text: str) -> list[tuple[str, str, str]]:
    """A rendered template -> its text around each turn, as `template_frame` gives it."""
    frame = []
    before, *rest = text.split(USER)
    for index, part in enumerate(rest):
        before_answer, _, after = part.partition(ASSISTANT)
        # text between an answer and the next question belongs to both; it is put after the answer
        frame.append((before if index == 0 else "", before_answer, after))
    return frame


def _plain_frame(tokenizer: Any, turn_count: int, system: str | None) -> list[tuple[str, str, str]]:
    """Without a template, as of GPT-2: the system's words, the question and its answer on lines of their own, and the end
    of the text behind each answer."""
    first = f"{system}\n" if system else ""
    return [("" if turn else first, "\n", f"{tokenizer.eos_token}\n") for turn in range(turn_count)]


def can_split(tokenizer: Any) -> bool:
    """Whether there is a template that writes each question and answer once, in their order."""
    messages = [("user", USER), ("assistant", ASSISTANT), ("user", USER)]
    try:
        text = _render(tokenizer, [{"role": role, "content": content} for role, content in messages], True)
    except (TemplateError, TypeError, ValueError):  # ValueError: there is none
        return False
    return [each for each in text if each in (USER, ASSISTANT)] == [USER, ASSISTANT, USER]


def _render(tokenizer: Any, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    """The template's text. A template without a system role (Gemma's) refuses it, and gets the system's words at the
    head of the first question."""
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except TemplateError:
        if messages[0]["role"] != "system":
            raise
        system, first, *rest = messages
        joined = first | {"content": f"{system['content']}\n\n{first['content']}"}
        return _render(tokenizer, [joined, *rest], add_generation_prompt)


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """The ids of the control tokens, and how each is spelled."""
    return {id: token.content for id, token in tokenizer.added_tokens_decoder.items() if token.special}


def end_ids(tokenizer: Any) -> tuple[int, ...]:
    """The tokens at which an answer ends: every control token, since none is part of an answer. Some checkpoints name the
    end of a text only, and it is the template that says where a turn ends."""
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *control_tokens(tokenizer)]))


def pad_id(tokenizer: Any) -> int:
    """A token for padding, which is neither seen nor learned: any will do, and the end of a turn would mislead readers."""
    found = (tokenizer.pad_token_id, tokenizer.unk_token_id)
    return next((id for id in found if id is not None and id != tokenizer.eos_token_id), 0)


def _together(
    tokenizer: Any,
    before: str,
    words: str,
    after: str,
    behind_words: bool = False,
    before_words: bool = False,
) -> list[int]:
    """The template's text around somebody's words, read as one text: some tokenizers put a space in front of whatever
    they are given. Words that spell a control token are read apart, as are others that stand before it or behind it."""
    whole = f"{before}{words}{after}"
    if all(
        whole.count(token) == before.count(token) + after.count(token)
        for token in control_tokens(tokenizer).values()
    ):
        return _control(tokenizer, whole, behind_words, before_words)
    return [
        *_control(tokenizer, before, behind_words, before_words=True),
        *text_ids(tokenizer, words),
        *_control(tokenizer, after, behind_words=True, before_words=before_words),
    ]


def _control(tokenizer: Any, text: str, behind_words: bool = False, before_words: bool = False) -> list[int]:
    """The template's text, whose control tokens are obeyed. A space that it has beside words that are read apart would be
    there twice where the tokenizer puts one in front of whatever it is given, as Llama 2's does."""
    behind_words, before_words = behind_words and text.startswith(" "), before_words and text.endswith(" ")
    if (behind_words or before_words) and _puts_a_space(tokenizer):
        text = text.removeprefix(" " * behind_words).removesuffix(" " * before_words)
    return _tokenise(tokenizer, text, split_special_tokens=False)


def _puts_a_space(tokenizer: Any) -> bool:
    return tokenizer.convert_ids_to_tokens(text_ids(tokenizer, "a"))[0].startswith(("\u2581", "\u0120"))


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Somebody's words: control tokens in them are spelled out, not obeyed."""
    return _tokenise(tokenizer, text, split_special_tokens=True)


def _tokenise(tokenizer: Any, text: str, split_special_tokens: bool) -> list[int]:
    if not text:
        return []
    with _TOKENISING:
        return tokenizer(text, add_special_tokens=False, split_special_tokens=split_special_tokens)[
            "input_ids"
        ]


def collate(conversations: Sequence[Encoded], pad_id: int) -> Batch:
    """Pad to one length, on the right."""
    length = max(len(conversation.ids) for conversation in conversations)

    def padded(values: Sequence[int], filler: int) -> list[int]:
        return [*values, *[filler] * (length - len(values))]

    ids = torch.tensor([padded(each.ids, pad_id) for each in conversations])
    present = torch.tensor([padded([1] * len(each.ids), 0) for each in conversations])
    labels = torch.tensor([padded(each.labels, IGNORE) for each in conversations])
    visual_mask = ids == VISUAL
    return Batch(ids.masked_fill(visual_mask, pad_id), visual_mask, present, labels)
