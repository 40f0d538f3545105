"""Rows -> the conversations of as many epochs as a stage asks for, and those that watch it."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from accelerate import PartialState

from training.adapters.conversations import Conversations, has_task, short_enough
from training.config import SourceConfig, StageConfig, TrainingConfig
from training.data import Row
from training.data.augmentation import NO_AUGMENTATION
from training.data.features import FeatureStore
from vlm.errors import UserError
from vlm.model.vlm import VisionLanguageModel

log = logging.getLogger("training")


def lay_out(
    rows: Sequence[Row],
    store: FeatureStore,
    tags: Mapping[str, str],
    model: VisionLanguageModel,
    config: TrainingConfig,
    system: str,
    sources: Sequence[SourceConfig],
    epochs: int,
) -> Conversations:
    return Conversations(
        rows,
        store,
        tags,
        model.language.tokenizer,
        tokens_per_picture=model.eyes.tokens_per_picture,
        system=system,
        style=config.style,
        sources=sources,
        # of one step
        batch_size=config.batch_size * config.gradient_accumulation * PartialState().num_processes,
        epochs=epochs,
        tag_dropout=config.tag_dropout,
        max_tokens=config.max_tokens,
        several_pictures=config.several_pictures,
        seed=config.seed,
        augmentation=config.augmentation,
    )


def long_enough(lay: Callable[[int], Conversations], epochs: int, steps: int) -> Conversations:
    """Conversations of `epochs` epochs, or of as many as `steps` need. Each epoch is drawn by a seed of its own, so that
    the batches of those before stay as they were, but for a last one that was not full."""
    examples = lay(epochs)
    if not len(examples):
        raise UserError(
            "Nothing is left to train on: of the pictures none was drawn. Take a larger slice, or greater shares and other "
            "tasks of the sources."
        )
    while 0 < steps_of_epochs(examples) < steps:
        epochs = max(epochs + 1, epochs * steps // steps_of_epochs(examples))
        examples = lay(epochs)
    return examples


def steps_of_epochs(examples: Conversations) -> int:
    return math.ceil(len(examples) / examples.batch_size)


def within_epochs(name: str, stage: StageConfig, examples: Conversations) -> StageConfig:
    """Limit `max_steps` to the steps that the epochs have: more would repeat the same drawn questions."""
    steps = steps_of_epochs(examples)
    if stage.max_steps <= steps:
        return stage
    log.warning(
        "stage %s: its epochs, %d, have %d steps, which is fewer than its max_steps, %d. It ends with them; raise epochs "
        "to train for longer.",
        name, stage.epochs, steps, stage.max_steps,
    )  # fmt: skip
    return replace(stage, max_steps=steps)


def lay_out_validation(
    rows: Sequence[Row],
    store: FeatureStore,
    tags: Mapping[str, str],
    model: VisionLanguageModel,
    config: TrainingConfig,
    system: str,
) -> Conversations | None:
    """Conversations about the validation pictures, which `rows` ask about, of the sources that have any; None where none
    has. What cannot be watched forbids no training: it is told."""
    known = {row.source for row in rows}
    rows = short_enough(rows, model.language.tokenizer, config.max_tokens)
    sources = [
        source
        for source in config.sources
        if any(row.source == source.name and has_task(row, source) for row in rows)
    ]
    if left_out := [each.name for each in config.sources if each.name in known and each not in sources]:
        log.warning(
            "no validation question of %s can be asked: all are too long (max_tokens of the preset) or of other tasks",
            ", ".join(left_out),
        )
    if not sources:
        log.warning("%s has no validation pictures of the preset's sources: no loss of them", config.data)
        return None
    plain = replace(config, augmentation=NO_AUGMENTATION, several_pictures=0.0)
    examples = lay_out(rows, store, tags, model, plain, system, sources, epochs=1)
    examples.examples = examples.examples[: config.validation_conversations]
    return examples
