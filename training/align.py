"""python -m training.align --preset embedded: parquet -> an aligner's folder, with its scores and plots.

Pictures and their texts learn to find each other. Frozen encoders see each picture and text once; what trains are the
heads (stage heads), or the encoders with them (stage full). A killed run goes on where its last checkpoint left off when
the same command is given again, and ends bit for bit where it would have.
"""

import argparse
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from training.aligners.contrast import LOSSES
from training.aligners.pairs import PairData, facts_of, read_pairs
from training.aligners.plots import draw_all
from training.aligners.sides import prepare, sides, texts_of
from training.aligners.trainer import PairCollator, build_trainer
from training.aligners.validation import EMBEDDINGS, Validation
from training.config import AlignmentConfig, check_counts, check_report_to, load_alignment_config
from training.runs.aligner_run import claim_output, is_finished, training_record
from training.runs.checkpoints import last_whole_checkpoint
from training.runs.processes import join_processes
from training.runs.resources import GOES_ON, keep_memory, training_in
from training.scores.alignment import report
from vlm.config import load_aligner_config
from vlm.errors import UserError
from vlm.model.aligner import STAGES, Aligner
from vlm.model.alignment import build_aligner, save_aligner
from vlm.model.embeddings import Precomputed
from vlm.terminal import command

log = logging.getLogger("training")
SPARE = f"in a copy of the preset choose a smaller chunk_size, which changes nothing of what is learned, and {GOES_ON}"
VALID: dict[str, Collection[str]] = {  # settings -> what they may be
    "stage": STAGES,
    "loss": LOSSES,
    "matryoshka": ("sampled", "all"),
    "precision": ("float32", "bfloat16", "float16"),
}


def run(config: AlignmentConfig, extend: bool = False) -> Path:
    """Pairs, features, training, scores, plots. With `extend` a run that is there may go on to more epochs."""
    check(config)
    keep_memory()
    set_seed(config.seed)
    process = join_processes()
    folder = Path(config.output) / "aligner"
    data = pairs_to_learn(config)
    preset = load_aligner_config(config.aligner)
    aligner = build_aligner(preset, str(process.device))  # what cannot be built has no right to the folder
    check_precomputed(aligner, config)
    with process.main_process_first():
        extended_at = claim_output(config, preset, facts_of(data), extend)
    if is_finished(config):
        log.info("the run is finished already; nothing was done")
        return folder
    aligner.train_only(config.stage)
    texts = texts_of(data, config)
    with process.main_process_first():  # the others read what it wrote
        picture_of_side, text_of_side, broken = sides(aligner, config, texts)
    data = without_broken(data, broken)
    train = [each for each in data.train if texts[each.picture]]
    if not train:
        raise UserError(
            f"Nothing of {config.data} is left to train on: every picture was skipped, as told above."
        )
    prepare(aligner, config, train, texts, picture_of_side, text_of_side)
    watched = [each for each in data.validation if each.captions]
    validation = Validation(watched, [texts[each.picture] for each in watched], picture_of_side, text_of_side)
    described = training_record(config, len(train)) | ({"extended_at": extended_at} if extended_at else {})
    collator = PairCollator(picture_of_side, text_of_side)
    trainer = build_trainer(aligner, config, train, texts, collator, validation, described)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(Path(config.output)))
    if process.is_main_process:
        write_aligner(aligner, config, validation, described)
    return folder


def check(config: AlignmentConfig) -> None:
    """UserError where a setting is none that there is, before anything is read or computed."""
    for name, valid in VALID.items():
        if getattr(config, name) not in valid:
            raise UserError(f"There is no {name} {getattr(config, name)!r}. Valid: {', '.join(valid)}.")
    counts = ("batch_size", "epochs", "save_steps", "validation_steps")
    check_counts({name: getattr(config, name) for name in counts})
    if config.save_steps % config.validation_steps:  # or the best checkpoint would not be one that was scored
        raise UserError(
            f"save_steps ({config.save_steps}) must be a multiple of validation_steps ({config.validation_steps})."
        )
    if config.keep_every % config.save_steps:  # or fewer would be kept than it says
        raise UserError(
            f"keep_every ({config.keep_every}) must be a multiple of save_steps ({config.save_steps}), or 0."
        )
    if config.precision == "float16" and not torch.cuda.is_available():
        raise UserError("The precision float16 needs a GPU. Set it to float32, or to bfloat16.")
    check_report_to(config.report_to)


def pairs_to_learn(config: AlignmentConfig) -> PairData:
    """The pairs of the preset's sources. UserError where none of them can train."""
    sources = [source.name for source in config.sources]
    data = read_pairs(Path(config.data), sources, config.validation_share)
    if not data.train:
        raise UserError(f"{config.data} has no pictures with texts in the sources {', '.join(sources)}.")
    for source in sorted(set(sources) - {each.source for each in (*data.train, *data.validation)}):
        log.warning(
            "The source %s is left out: %s has no training pictures with texts of it.", source, config.data
        )
    return data


def check_precomputed(aligner: Aligner, config: AlignmentConfig) -> None:
    if isinstance(aligner.vision, Precomputed) and (config.stage == "full" or config.augmentation.views):
        raise UserError(
            "The aligner reads embeddings that were computed elsewhere: no encoder can be trained, or see changed views. "
            "Set stage to heads and augmentation.views to 0."
        )


def without_broken(data: PairData, broken: Collection[str]) -> PairData:
    """The pairs whose pictures can be read. What is skipped, and why, is told."""
    data = data.without(broken)
    data.skipped["broken pictures"] += len(broken)
    for reason, count in data.skipped.items():
        if count:
            log.warning("skipped, %s: %d", reason, count)
    return data


def write_aligner(
    aligner: Aligner, config: AlignmentConfig, validation: Validation, described: dict[str, Any]
) -> None:
    """The run's aligner, and its scores and plots, which a kill meanwhile leaves to the next start."""
    output = Path(config.output)
    save_aligner(aligner, output / "aligner", described, {})
    aligner.eval()
    validation.keep(aligner, output / EMBEDDINGS)
    draw_all(output)
    scores = report(aligner, Path(config.data), config.aligner)
    save_aligner(aligner, output / "aligner", described, scores)


@command("align")
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.align", description=__doc__)
    parser.add_argument("--preset", default="embedded", help="a training preset's name or a YAML file")
    parser.add_argument("--data", help="folder of parquet files (default: the preset's)")
    parser.add_argument("--output", help="folder of the run; the aligner is OUTPUT/aligner")
    parser.add_argument("--extend", type=int, metavar="EPOCHS", help="train a run to so many epochs in all")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--report-to", help="wandb, trackio or tensorboard; their package must be installed")
    arguments = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    epochs = arguments.pop("extend")
    if epochs is not None and epochs < 1:
        parser.error("--extend must be 1 or more")
    config = load_alignment_config(arguments.pop("preset"), epochs=epochs, **arguments)
    with training_in(Path(config.output), Path(config.data), SPARE):
        folder = run(config, extend=epochs is not None)
    log.info("the aligner is in %s", folder)


if __name__ == "__main__":
    main()
