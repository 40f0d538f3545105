"""A trunk with its heads, and held-out examples of each task -> the metrics of each task."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from more_itertools import chunked
from torch import Tensor

from training.scores.captions import cider
from training.scores.metrics import share
from training.scores.retrieval import found_both_ways
from training.scores.vqa import vqa_accuracy
from training.tasks.data import Example, Vocabulary, WordPieces
from vlm.model.heads.multi_task import MultiTask
from vlm.model.heads.retrieval import similarities
from vlm.model.heads.task import TaskBatch

AT_ONCE = 32

Features = Callable[[str], Tensor]


@torch.inference_mode()
def score_tasks(
    model: MultiTask,
    examples: Mapping[str, Sequence[Example]],
    features_of: Features,
    words: WordPieces,
    vocabulary: Vocabulary,
) -> dict[str, Any]:
    """A task without held-out examples is left out."""

    def batches(of_task: Sequence[Example]) -> Iterator[TaskBatch]:
        device = next(model.parameters()).device
        for some in chunked(of_task, AT_ONCE):
            ids, present = words.tokenize([each.texts[0] for each in some])
            features = torch.stack([features_of(each.picture) for each in some])
            yield TaskBatch(features.to(device), ids.to(device), present.to(device))

    scored: dict[str, Any] = {}
    for task, of_task in examples.items():
        if not of_task:
            continue
        of_batches = batches(of_task)
        match task:
            case "retrieval":
                scored[task] = retrieval_scores(model, of_batches)
            case "matching":
                scored[task] = matching_scores(model, of_batches)
            case "caption":
                scored[task] = caption_scores(model, of_task, of_batches, words)
            case "vqa":
                scored[task] = vqa_scores(model, of_task, of_batches, vocabulary)
    return scored


def retrieval_scores(model: MultiTask, batches: Iterable[TaskBatch]) -> dict[str, float]:
    """The first caption of each picture among those of all, both ways."""
    embedded = [model.heads["retrieval"].embed(model.trunk, batch) for batch in batches]
    pictures, texts = (torch.cat([each[side] for each in embedded]) for side in (0, 1))
    likeness = similarities(pictures, texts).T.cpu()
    own = torch.eye(len(likeness), dtype=torch.bool)
    return found_both_ways(likeness, own) | {"of": len(likeness)}


def matching_scores(model: MultiTask, batches: Iterable[TaskBatch]) -> dict[str, Any]:
    """Whether a picture's own caption is likelier to belong to it than the next picture's. Training shows two wrong ones
    for each right one, so that what is likelier than not would say no to nearly all."""
    right = []
    for batch in batches:
        if len(batch.ids) < 2:
            continue
        wrong = batch._replace(ids=batch.ids.roll(1, 0), present=batch.present.roll(1, 0))
        for_own, for_wrong = (model.heads["matching"].scores(model.trunk, each) for each in (batch, wrong))
        right += ((for_own - for_wrong).diff(dim=-1)[:, 0] > 0).tolist()
    return share(right)._asdict()


def caption_scores(
    model: MultiTask, examples: Sequence[Example], batches: Iterable[TaskBatch], words: WordPieces
) -> dict[str, Any]:
    end = (
        words.tokenizer.sep_token_id
        if words.tokenizer.sep_token_id is not None
        else words.tokenizer.eos_token_id
    )
    written = [
        words.tokenizer.decode(ids)
        for batch in batches
        for ids in model.heads["caption"].write(model.trunk, batch.patch_features, end)
    ]
    scores = cider(written, [each.texts for each in examples])
    return {"cider": sum(scores) / len(scores), "of": len(scores), "examples": written[:5]}


def vqa_scores(
    model: MultiTask, examples: Sequence[Example], batches: Iterable[TaskBatch], vocabulary: Vocabulary
) -> dict[str, Any]:
    """`lacking`: questions none of whose answers is in the vocabulary, which count as wrong."""
    chosen = torch.cat([model.heads["vqa"].scores(model.trunk, batch).argmax(-1) for batch in batches])
    said = [vocabulary.answers[place] for place in chosen.tolist()]
    right = [vqa_accuracy(answer, each.answers) > 0 for answer, each in zip(said, examples, strict=True)]
    usual = [vqa_accuracy(vocabulary.answers[0], each.answers) > 0 for each in examples]
    lacking = sum(not vocabulary.knows(each) for each in examples)
    return share(right)._asdict() | {"most_frequent_answer": share(usual).share, "lacking": lacking}
