"""Conversation -> token ids with the places of visual tokens, and batches of them. Pure functions of the tokenizer.

The chat template's own text is used, split where a picture stands: visual tokens go between the embedded parts, with no
placeholder token in the vocabulary, so any number of them fits. What people type is tokenised with the control tokens
switched off, so that "<|im_end|>" in a question is just text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError
from torch import Tensor

IGNORE = -100  # label of a position that is not learned (the convention of torch's cross_entropy)
VISUAL = -1  # in `Encoded.ids`: a visual token stands here


@dataclass(frozen=True)
class PromptTurn:
    """One question, its answer ("" for the one to come), the tags of the pictures shown before the question, and those of
    the things that the question names, a text for each picture that it is about."""

    question: str
    answer: str = ""
    picture_tags: tuple[str, ...] = ()
    asked_tags: tuple[str, ...] = ()


class Encoded(NamedTuple):
    """`ids` with VISUAL where a visual token stands; `labels` are the ids to learn, IGNORE elsewhere; at `question` the
    last question's own text begins. `blocks`: see `Batch`; empty for a conversation as it is held."""

    ids: list[int]
    labels: list[int]
    question: int
    blocks: tuple[int, ...] = ()


class Batch(NamedTuple):
    """All [B, T]. `visual_mask` is True where the visual tokens go, in reading order; `input_ids` there is padding.
    `blocks` are 0, or number the parts of a conversation that see what is 0 before them, but not each other; None where
    no conversation has such."""

    input_ids: Tensor
    visual_mask: Tensor
    attention_mask: Tensor
    labels: Tensor
    blocks: Tensor | None = None


def encode(
    tokenizer: Any, turns: Sequence[PromptTurn], tokens_per_picture: int, system: str | None = None
) -> Encoded:
    """The conversation as the model reads it. Answers and their end-of-turn token are the labels; when the last turn
    has no answer yet the ids end where the model is to begin it."""
    ids: list[int] = []
    labels: list[int] = []
    question = 0

    def add(new: list[int], learn: bool) -> None:
        ids.extend(new)
        labels.extend(new if learn else [IGNORE] * len(new))

    frame = _template_frame(tokenizer, len(turns), bool(turns[-1].answer), system)
    for turn, (before_user, before_answer, after_answer) in zip(turns, frame, strict=True):
        add(_control(tokenizer, before_user), learn=False)
        for tags in turn.picture_tags:
            add([VISUAL] * tokens_per_picture, learn=False)
            add(_text(tokenizer, f"\nTags: {tags}.\n" if tags else "\n"), learn=False)
        question = len(ids)
        lines = [turn.question.strip(), *(f"Tags: {tags}." for tags in turn.asked_tags if tags)]
        add(_text(tokenizer, "\n".join(lines)), learn=False)
        add(_control(tokenizer, before_answer), learn=False)
        if turn.answer:
            ending = _control(tokenizer, after_answer)
            add(_text(tokenizer, turn.answer.strip()) + ending[:1], learn=True)  # learn where to stop as well
            add(ending[1:], learn=False)
    return Encoded(ids, labels, question)


def ask_apart(conversations: Sequence[Encoded]) -> Encoded:
    """Conversations that begin alike, up to their questions -> one that reads the beginning once, and in which no
    question sees the others."""
    if len(conversations) == 1:
        return conversations[0]
    shared = conversations[0].question
    ids, labels = conversations[0].ids[:shared], conversations[0].labels[:shared]
    blocks = [0] * shared
    for number, each in enumerate(conversations, 1):
        if each.ids[: each.question] != ids[:shared]:
            raise ValueError("Conversations that do not begin alike cannot be read as one.")
        ids, labels = ids + each.ids[shared:], labels + each.labels[shared:]
        blocks += [number] * (len(each.ids) - shared)
    return Encoded(ids, labels, shared, tuple(blocks))


def _template_frame(
    tokenizer: Any, turn_count: int, answered: bool, system: str | None
) -> list[tuple[str, str, str]]:
    """The template's text around each turn: before the question, between question and answer, after the answer.

    The template is rendered with private-use characters for contents and split at them, so whatever a template puts
    around its messages (system prompts, line ends, headers) is kept as it is.
    """
    user, assistant = "\ue000", "\ue001"
    messages = [{"role": "system", "content": system}] if system else []
    for index in range(turn_count):
        messages.append({"role": "user", "content": user})
        if answered or index < turn_count - 1:
            messages.append({"role": "assistant", "content": assistant})
    text = _render(tokenizer, messages, add_generation_prompt=not answered)
    frame = []
    before, *rest = text.split(user)
    for index, part in enumerate(rest):
        before_answer, _, after = part.partition(assistant)
        # text between an answer and the next question belongs to both; it is put after the answer
        frame.append((before if index == 0 else "", before_answer, after))
    return frame


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


def end_of_turn(tokenizer: Any) -> list[int]:
    """The control token that the template puts behind an answer; none where it ends in plain text."""
    _, _, after = _template_frame(tokenizer, 1, True, None)[0]
    control = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return [id for id in _control(tokenizer, after)[:1] if id in control]


def _control(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


def _text(tokenizer: Any, text: str) -> list[int]:
    """Somebody's words: control tokens in them are spelled out, not obeyed."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] if text else []


def collate(conversations: Sequence[Encoded], pad_id: int, pad_left: bool = False) -> Batch:
    """Pad to one length: on the right for training. For generation on the left, both of what stands before the last
    question and of what follows, so that the former ends in one column and can be read once where it is shared."""
    length = max(len(conversation.ids) for conversation in conversations)
    column = max(conversation.question for conversation in conversations)
    rest = max(len(conversation.ids) - conversation.question for conversation in conversations)

    def padded(values: list[int], question: int, filler: int) -> list[int]:
        if not pad_left:
            return values + [filler] * (length - len(values))
        before, after = values[:question], values[question:]
        return [filler] * (column - len(before)) + before + [filler] * (rest - len(after)) + after

    ids = torch.tensor([padded(each.ids, each.question, pad_id) for each in conversations])
    present = torch.tensor([padded([1] * len(each.ids), each.question, 0) for each in conversations])
    labels = torch.tensor([padded(each.labels, each.question, IGNORE) for each in conversations])
    blocks = None
    if any(conversation.blocks for conversation in conversations):
        blocks = torch.tensor(
            [padded(list(each.blocks) or [0] * len(each.ids), each.question, 0) for each in conversations]
        )
    visual_mask = ids == VISUAL
    return Batch(ids.masked_fill(visual_mask, pad_id), visual_mask, present, labels, blocks)


def attention_of_blocks(attention_mask: Tensor, blocks: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Attention mask and blocks [B, T] -> who sees whom, [B, 1, T, T], 0 or the lowest number, and the positions [B, T],
    counted over what each sees."""
    length = blocks.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=blocks.device).tril()
    common, own = blocks.unsqueeze(1) == 0, blocks.unsqueeze(1) == blocks.unsqueeze(2)
    seen = earlier & attention_mask.bool().unsqueeze(1) & (common | own)  # [B, who, whom]
    hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    hidden = hidden.masked_fill(~seen, torch.finfo(dtype).min)
    return hidden.unsqueeze(1), (seen.sum(-1) - 1).clamp(min=0)
