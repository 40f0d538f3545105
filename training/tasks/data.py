"""Rows -> what each task learns from, and batches of it laid out for a whole run."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from training.data import Row
from training.scores.verdicts import short_answers
from training.scores.vqa import official_form
from vlm.errors import UserError
from vlm.model.heads import TASKS
from vlm.model.text_encoders import tokenize

SHORT = 3  # words that an answer of a vocabulary has at most


class Example(NamedTuple):
    """A picture and its captions; or a question about it, and the answers that people gave, in VQA's form."""

    picture: str
    texts: tuple[str, ...]
    answers: tuple[str, ...] = ()


def examples_of(rows: Iterable[Row]) -> dict[str, list[Example]]:
    """ "captions": a picture each. "questions": those with a short answer that has to be looked up in the picture."""
    captions: dict[str, tuple[str, ...]] = {}
    questions = []
    for row in rows:
        if row.references:
            captions[row.picture] = tuple(dict.fromkeys([*captions.get(row.picture, ()), *row.references]))
        elif row.task in ("vqa", "count", "colour", "") and len(row.answer.split()) <= SHORT:
            answers = dict.fromkeys(map(official_form, (row.answer, *short_answers(row))))
            questions.append(Example(row.picture, (row.question,), tuple(filter(None, answers))))
    return {
        "captions": [Example(*each) for each in captions.items()],
        # a question comes again in conversations
        "questions": [each for each in dict.fromkeys(questions) if each.answers],
    }


def texts_of(task: str) -> str:
    """Which of `examples_of` it learns from."""
    return "questions" if task == "vqa" else "captions"


def check_tasks(
    tasks: Iterable[str], examples: Mapping[str, Sequence[Example]], sources: Sequence[str]
) -> None:
    """Refuse a task that is none, or that there is no data for."""
    for task in tasks:
        if task not in TASKS:
            raise UserError(f"There is no task {task!r}. Valid: {', '.join(TASKS)}.")
        kind = texts_of(task)
        if len(examples[kind]) < 2:
            raise UserError(
                f"The task {task!r} learns from pictures with {kind}, and the sources {', '.join(sources)} have "
                f"{len(examples[kind])} for training. Add a source that has {kind}, or take the task out."
            )


class Vocabulary:
    """The answers that a classifier chooses from: the most frequent ones of training."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.places = {answer: place for place, answer in enumerate(answers)}

    @classmethod
    def of(cls, questions: Iterable[Example], size: int) -> "Vocabulary":
        counts = Counter(answer for each in questions for answer in each.answers)
        return cls([answer for answer, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:size]])

    def knows(self, question: Example) -> bool:
        return any(answer in self.places for answer in question.answers)

    def lacking(self, questions: Sequence[Example]) -> str:
        """A sentence about the questions that it has no answer to; empty where there are none."""
        unknown = Counter(each.answers[0] for each in questions if not self.knows(each))
        if not unknown:
            return ""
        count, examples = sum(unknown.values()), ", ".join(answer for answer, _ in unknown.most_common(3))
        return (
            f"The vocabulary of {len(self.answers)} answers lacks those of {count} of {len(questions)} questions "
            f"({count / len(questions):.0%}), such as {examples}."
        )

    def targets(self, questions: Sequence[Example]) -> Tensor:
        """[B, A], each row's shares of its known answers"""
        targets = torch.zeros(len(questions), len(self.answers))
        for row, each in enumerate(questions):
            known = [self.places[answer] for answer in each.answers if answer in self.places]
            targets[row, known] = 1 / max(1, len(known))
        return targets


class WordPieces:
    """A text encoder's tokenizer, which the trunk reads with. The encoder's own weights, 438 MB, are not needed."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, min(max_length, tokenizer.model_max_length)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and which are there, both [B, L]."""
        return tokenize(self.tokenizer, texts, self.max_length)


class TaskSteps(Dataset):
    """Step -> a batch of each task, as `MultiTask.forward` takes it. Deterministic in `seed`, so that a resumed run sees
    the same ones."""

    def __init__(
        self,
        examples: Mapping[str, Sequence[Example]],
        features_of: Callable[[str], Tensor],
        tokenize: Callable[[Sequence[str]], tuple[Tensor, Tensor]],
        vocabulary: Vocabulary,
        *,
        batch_size: int,
        steps: int,
        seed: int,
    ) -> None:
        self.examples, self.features_of, self.tokenize = examples, features_of, tokenize
        self.vocabulary, self.batch_size, self.steps, self.seed = vocabulary, batch_size, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, dict[str, Tensor]]:
        return {
            task: self._batch(task, random.Random(f"{self.seed} {task} {step}")) for task in self.examples
        }

    def _batch(self, task: str, rng: random.Random) -> dict[str, Tensor]:
        known = self.examples[task]
        drawn = rng.sample(known, min(self.batch_size, len(known)))
        ids, present = self.tokenize([rng.choice(each.texts) for each in drawn])
        features = torch.stack([self.features_of(each.picture) for each in drawn])
        batch = {"patch_features": features, "ids": ids, "present": present}
        return batch | ({"targets": self.vocabulary.targets(drawn)} if task == "vqa" else {})


def only(batches: Sequence[Any]) -> Any:
    """The collator of steps, which are batches already."""
    (batch,) = batches
    return batch
