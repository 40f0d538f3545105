"""A run of training/align.py: what it is trained with, whether it is finished, and how its aligner tells it."""

import json
from pathlib import Path
from typing import Any

from accelerate import PartialState

from training.config import AlignmentConfig
from training.digest import digest
from training.runs.checkpoints import last_whole_checkpoint, steps_of
from training.runs.run_settings import claim_folder
from vlm.config import AlignerConfig
from vlm.config_reader import read_yaml, to_dict
from vlm.errors import UserError

PLACES = ("data", "output")
# Settings that change nothing of what is learned
FREE = ("logging_steps", "keep_every", "chunk_size", "report_to")


def claim_output(config: AlignmentConfig, preset: AlignerConfig, pairs: list[Any], extend: bool) -> list[int]:
    """Make sure that the run's folder is trained with these settings and pairs alone; returns the steps at which it was
    extended."""
    output = Path(config.output)
    remedy = "Give the settings from before, or another --output. --extend EPOCHS trains the same for longer."
    checkpoint = last_whole_checkpoint(output)
    if extend and not checkpoint:
        raise UserError(f"{output} has no checkpoint that --extend could go on from. {remedy}")
    done = steps_of(checkpoint)
    settings = {name: value for name, value in to_dict(config).items() if name not in (*FREE, *PLACES)}
    settings |= {"aligner": to_dict(preset), "pairs": digest(pairs)}
    settings["batch_size"] *= PartialState().num_processes
    return claim_folder(output, settings, remedy, ("epochs",) if extend else (), done)


def is_finished(config: AlignmentConfig) -> bool:
    """Whether the run's aligner is trained for these epochs, and has its scores."""
    folder = Path(config.output) / "aligner"
    if not (folder / "metrics.json").is_file():
        return False
    trained = read_yaml(folder / "config.yaml")["training"]
    return trained["epochs"] == config.epochs and bool(json.loads((folder / "metrics.json").read_text()))


def training_record(config: AlignmentConfig, pictures: int) -> dict[str, Any]:
    """How it was trained, as the aligner's folder tells it: without this machine's folders."""
    told = {key: value for key, value in to_dict(config).items() if key not in PLACES}
    return told | {"pictures": pictures}
