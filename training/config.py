"""A training preset: which model on which data, in which stages."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from training.data.augmentation import AugmentationConfig
from vlm.config_reader import load_preset
from vlm.errors import UserError

PRESET_FOLDER = Path(__file__).parent / "presets"
REPORTERS = ("none", "wandb", "trackio", "tensorboard")


def check_report_to(name: str) -> None:
    """UserError where training is to be reported to what is not known, or not installed."""
    if name not in REPORTERS:
        raise UserError(f"There is no report_to {name!r}. Valid: {', '.join(REPORTERS)}.")
    if name != "none" and not find_spec(name):
        raise UserError(f"The package {name} is not installed. Install it with: pip install {name}")


def check_counts(counts: Mapping[str, int]) -> None:
    """Setting -> its value. UserError where one is less than 1."""
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name} must be 1 or more.")


@dataclass(frozen=True)
class StageConfig:
    """One stage: the parts that train (`vlm.model.vlm.STAGES`), a learning rate for each, and for how long."""

    train: str = "projector+lora"
    connector_learning_rate: float = 1e-3  # of the fusion as well
    lora_learning_rate: float = 3e-4
    language_learning_rate: float = 5e-5  # of the language model itself, where a stage trains it
    epochs: int = 1
    max_steps: int = -1  # at most so many optimizer steps; -1 for all of the epochs


@dataclass(frozen=True)
class SourceConfig:
    """How a source of the data set enters an epoch: each picture `share` times on average, each time with up to
    `turns` of its questions, drawn anew, as one conversation."""

    name: str
    share: float = 1.0
    turns: int = 6
    tasks: tuple[str, ...] = ()  # only questions of these; empty: all


@dataclass(frozen=True)
class TrainingConfig:
    model: str = "embedded"
    data: str = "data/embedded"
    output: str = "runs/embedded"
    init_from: str | None = None  # adapter to go on from, without the projector's own stage
    # folder of training.heads whose Q-Former the connector begins as: BLIP-2's second stage
    connector_from: str | None = None
    sources: tuple[SourceConfig, ...] = ()
    projector_stage: StageConfig = StageConfig(train="projector")
    joint_stage: StageConfig = StageConfig()
    style: str = "full"  # of the answers: "keywords" leaves out function words and punctuation
    slice: str | None = None  # "3/20": the third of twenty parts of the pictures, for training bit by bit
    batch_size: int = 8
    gradient_accumulation: int = 1
    augmentation: AugmentationConfig = AugmentationConfig()
    text_dropout: float = 0.0  # of the text's embeddings: the picture is to be looked at (arXiv:2409.17146)
    # of what the LoRA has learned, as the finished adapter applies it; under 1 it keeps less of the training pictures
    # and more of the base model (WiSE-FT, arXiv:2109.01903)
    lora_share: float = 1.0
    feature_noise: float = 0.0  # in deviations of each channel, so that pictures are not learned by heart
    tag_dropout: float = 0.2  # share of examples without the picture's tags, so that it is looked at
    # of the questions and answers of a conversation: what is longer is cut behind a turn, and a turn that alone is
    # longer is left out. It bounds the memory of a batch
    max_tokens: int = 1024
    several_pictures: float = 0.0  # share of the pictures that are shown with one or two others
    seed: int = 0
    warmup_steps: int = 50
    max_gradient_norm: float = 1.0
    gradient_checkpointing: bool = False  # much less memory for a third more work
    logging_steps: int = 10
    save_steps: int = 100
    validation_steps: int = 0  # steps between two looks at the validation loss; 0 for none
    validation_conversations: int = 100
    report_to: str = "none"

    @property
    def source_names(self) -> list[str]:
        return [source.name for source in self.sources]


@dataclass(frozen=True)
class Slice:
    """The `part`-th of `parts` equal parts of the pictures, the same ones in every run."""

    part: int = 1
    parts: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Slice":
        found = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"A slice is written like 3/20, the third of twenty parts; {text!r} was given.")
        return cls(int(found[1]), int(found[2]))

    def holds(self, picture: str) -> bool:
        number = int(hashlib.sha256(picture.encode()).hexdigest()[:12], 16)
        return number % self.parts == self.part - 1


def load_training_config(preset: str, **overrides: object) -> TrainingConfig:
    """A shipped preset's name or a YAML file, with overrides from the command line (None: not given)."""
    return load_preset(TrainingConfig, preset, PRESET_FOLDER, "training preset", overrides=overrides)


@dataclass(frozen=True)
class PairSource:
    """How a source enters an epoch of an aligner: each picture `share` times on average, each time with another text."""

    name: str
    share: float = 1.0


@dataclass(frozen=True)
class AlignmentConfig:
    """A training preset of an aligner (training/align.py)."""

    aligner: str = "embedded"
    data: str = "data/embedded"
    output: str = "runs/aligner"
    sources: tuple[PairSource, ...] = ()
    without_names_of: str | None = None  # a source whose names are no labels, so that naming it is zero-shot
    stage: str = "heads"  # vlm.model.aligner.STAGES
    loss: str = "infonce"  # training.aligners.contrast.LOSSES
    matryoshka: str = "sampled"  # one of the shorter dims a batch; all: each of them
    batch_size: int = 1024  # pairs that are told apart
    chunk_size: int = 128  # of them at once in memory (gradient caching)
    epochs: int = 10
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    max_gradient_norm: float = 1.0
    text_dropout: float = 0.1  # share of pairs whose text is dropped (training.aligners.contrast.info_nce)
    head_dropout: float = 0.0  # of the pooled features
    feature_noise: float = 0.0  # in deviations of each channel
    augmentation: AugmentationConfig = AugmentationConfig()
    # of the training pictures; the data's own validation split is for the last test
    validation_share: float = 0.1
    precision: str = "float32"  # or bfloat16, float16
    seed: int = 0
    logging_steps: int = 10
    save_steps: int = 50
    keep_every: int = 0  # steps between checkpoints that stay; 0: only the latest and the best do
    validation_steps: int = 50
    report_to: str = "none"


def load_alignment_config(preset: str, **overrides: object) -> AlignmentConfig:
    """A shipped preset's name or a YAML file, with overrides from the command line (None: not given)."""
    folder = PRESET_FOLDER / "aligners"
    return load_preset(AlignmentConfig, preset, folder, "training preset", " of an aligner", overrides)
