"""Rows -> conversations -> batches with answer-only labels.

Questions about one picture become one conversation of several turns, as in LLaVA (arXiv:2304.08485): the picture is
read once for many answers, which trains several times faster than one question at a time and teaches follow-up
questions. A share of the pictures is shown together with others (several_pictures.py). Only the texts are held in
memory; features come from the `FeatureStore`.
"""

import logging
import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from training.adapters.several_pictures import Asked, compose
from training.config import SourceConfig
from training.data import Row
from training.data.augmentation import (
    NO_AUGMENTATION,
    AugmentationConfig,
    draw_view,
    is_true_of,
    keeps_sides,
    view_ids,
)
from training.data.features import FeatureStore
from vlm.chat.words import to_keywords
from vlm.errors import UserError
from vlm.model.prompts import Encoded, PromptTurn, collate, encode
from vlm.model.vlm import VisionLanguageModel

log = logging.getLogger("training")

FRAME = 40  # characters, about, that the chat template's tokens around a question and its answer are worth
TOLD = 5  # rows that are too long, by their places


class Conversations(Dataset):
    """Rows -> conversations about one picture or several, laid out for all epochs, to be read in order.

    `tags`: of each picture, for the prompt. Deterministic in `seed`, so that a resumed run sees the same examples.
    Conversations of similar length stand together, `batch_size` at a time, so that little is padded. What an epoch has
    left over comes with the next, so that only the last batch of all may be a smaller one. The questions and answers of
    one have at most `max_tokens`: its last turns are left out, and so are rows that alone have more."""

    def __init__(
        self,
        rows: Sequence[Row],
        store: FeatureStore,
        tags: Mapping[str, str],
        tokenizer: Any,
        *,
        tokens_per_picture: int,
        system: str,
        style: str,
        sources: Sequence[SourceConfig],
        batch_size: int,
        epochs: int,
        tag_dropout: float,
        max_tokens: int,
        several_pictures: float,
        seed: int,
        augmentation: AugmentationConfig = NO_AUGMENTATION,
    ) -> None:
        self.store, self.tags, self.tokenizer = store, tags, tokenizer
        self.tokens_per_picture, self.system, self.style = tokens_per_picture, system, style
        self.tag_dropout, self.seed, self.augmentation = tag_dropout, seed, augmentation
        self.max_tokens, self.batch_size = max_tokens, batch_size
        known = {row.source for row in rows}
        by_source: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in short_enough(rows, tokenizer, max_tokens):
            by_source[row.source][row.picture + row.conversation].append(row)
        check_sources(known, [source.name for source in sources])
        if long := [source.name for source in sources if source.name not in by_source]:
            raise UserError(
                f"Of the data, no question of {', '.join(long)} has at most {max_tokens} tokens with its answer. Choose "
                "a larger max_tokens in the preset, or shorten the answers."
            )
        self.examples: list[list[Asked]] = []
        left: list[list[Asked]] = []
        for epoch in range(epochs):
            order = random.Random(f"{seed} {epoch}")
            drawn = [
                example for source in sources for example in _draw(by_source[source.name], source, order)
            ]
            composed = [self._cut(turns) for turns in compose(drawn, several_pictures, order)]
            left += [turns for turns in composed if turns]
            order.shuffle(left)
            whole = len(left) - len(left) % batch_size
            self.examples += _by_length(left[:whole], batch_size, order)
            left = left[whole:]
        self.examples += left

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`encoded`, the features of the pictures in the order in which they are shown, [M, N, Dv], and the question
        that each of them is shown with."""
        asked = self.examples[index]
        shown = {picture: self._view(picture, asked, index) for turn in asked for picture in turn.shown}
        without_tags = self._happens("tags", index, self.tag_dropout)
        turns = [
            PromptTurn(
                turn.question,
                self._answer(turn.answer),
                tuple("" if without_tags else self.tags.get(shown[picture], "") for picture in turn.shown),
            )
            for turn in asked
        ]
        encoded = encode(self.tokenizer, turns, self.tokens_per_picture, self.system)
        features = torch.stack([self.store[view] for view in shown.values()])
        questions = {picture: turn.question for turn in reversed(asked) for picture in turn.shown}
        return {
            "encoded": encoded,
            "patch_features": features,
            "questions": [questions[each] for each in shown],
        }

    def _happens(self, what: str, index: int, share: float) -> bool:
        return random.Random(f"{self.seed} {index} {what}").random() < share

    def _view(self, picture: str, asked: Sequence[Asked], index: int) -> str:
        """The picture, or one of its views that all the answers are true of."""
        rows = [turn.row for turn in asked if turn.row.picture == picture]
        said = [text for turn in asked if picture in turn.shown for text in (turn.question, turn.answer)]
        said += [text for row in rows for text in (row.question, row.answer)]
        names = [name for name in view_ids(picture, self.augmentation) if name in self.store]
        views = {name: draw_view(name, self.augmentation) for name in names}
        true = [
            name
            for name, view in views.items()
            if keeps_sides(view, *said) and all(is_true_of(view, row.task) for row in rows)
        ]
        return random.Random(f"{self.seed} {index} {picture} view").choice([picture, *true])

    def _answer(self, answer: str) -> str:
        return to_keywords(answer) if self.style == "keywords" else answer

    def _cut(self, asked: list[Asked]) -> list[Asked]:
        """The first turns, as many as may be."""
        texts = [text for turn in asked for text in (turn.question, turn.answer)]
        while texts and not fits(self.tokenizer, self.max_tokens, *texts):
            del texts[-2:]
        return asked[: len(texts) // 2]


def fits(tokenizer: Any, max_tokens: int, *texts: str) -> bool:
    """Whether texts have at most so many tokens. They are counted only where there may be too many: each is a byte or
    more."""
    if sum(len(text.encode()) for text in texts) <= max_tokens:
        return True
    counted = (len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    return sum(counted) <= max_tokens


def short_enough(rows: Sequence[Row], tokenizer: Any, max_tokens: int) -> list[Row]:
    """Without those that alone have too many tokens, which are counted and told."""
    kept, places = list[Row](), list[str]()
    for row in rows:
        if fits(tokenizer, max_tokens, row.question, row.answer):
            kept.append(row)
        else:
            places.append(row.place)
    if places:
        log.warning(
            "%d rows have more than %d tokens (max_tokens of the preset) and are left out: %s",
            len(places),
            max_tokens,
            "; ".join(places[:TOLD]) + ("; ..." if len(places) > TOLD else ""),
        )
    return kept


def check_sources(known: Collection[str], wanted: Sequence[str]) -> None:
    """Raise UserError where the data, whose sources are `known`, lack one that a preset names, or it names none."""
    there = ", ".join(sorted(known)) or "no training rows"
    if not wanted:
        raise UserError(f"The preset names no sources. The data has: {there}.")
    if missing := [name for name in wanted if name not in known]:
        raise UserError(f"The data has no source {', '.join(missing)}. It has: {there}.")


def check_tasks(rows: Collection[Row], sources: Sequence[SourceConfig]) -> None:
    """Raise UserError where a source's `tasks` leave none of its rows."""
    for source in sources:
        if not any(row.source == source.name and has_task(row, source) for row in rows):
            own = sorted(
                {row.task or "questions without a task" for row in rows if row.source == source.name}
            )
            raise UserError(
                f"The source {source.name} has no question of the tasks that the preset takes of it: "
                f"{', '.join(source.tasks)}. It has: {', '.join(own)}. Change its tasks in the preset, or leave them out "
                "to take all."
            )


def has_task(row: Row, source: SourceConfig) -> bool:
    """Whether the source takes questions of the row's task."""
    return not source.tasks or row.task in source.tasks


def _draw(pictures: dict[str, list[Row]], source: SourceConfig, order: random.Random) -> Iterator[list[Row]]:
    """Each picture or conversation `share` times on average, each time with other questions. The questions of an ordered
    conversation stay together: its first `turns` are taken."""
    for every_row in pictures.values():
        rows = [row for row in every_row if has_task(row, source)]
        times = int(source.share) + (order.random() < source.share % 1) if rows else 0
        for _ in range(times):
            if rows[0].conversation:
                yield sorted(rows, key=lambda row: row.turn)[: source.turns]
            else:
                yield order.sample(rows, min(source.turns, len(rows)))


def _by_length(examples: list[list[Asked]], batch_size: int, order: random.Random) -> list[list[Asked]]:
    """Shuffled examples, as many as whole batches have -> shuffled batches whose members are of similar length."""

    def length(asked: list[Asked]) -> int:
        return sum(len(turn.question) + len(turn.answer) + FRAME * (1 + len(turn.shown)) for turn in asked)

    window = 32 * batch_size
    batches = []
    for start in range(0, len(examples), window):
        alike = sorted(examples[start : start + window], key=length)
        batches += [alike[first : first + batch_size] for first in range(0, len(alike), batch_size)]
    order.shuffle(batches)
    return [example for batch in batches for example in batch]


class Collator:
    """Examples -> the model's forward arguments, padded on the right."""

    def __init__(self, model: VisionLanguageModel) -> None:
        self.pad_id, self.words = model.language.pad_id, model.eyes.words  # workers need no encoder

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        encoded: list[Encoded] = [example["encoded"] for example in examples]
        features = torch.cat([example["patch_features"] for example in examples])
        batch = collate(encoded, self.pad_id)._asdict() | {"patch_features": features}
        questions = [question for example in examples for question in example["questions"]]
        return batch | {"question_ids": self.words(questions)} if self.words else batch
