"""python -m training.align --preset embedded: parquet -> an aligner's folder, with its scores and plots.

Pictures and their texts learn to find each other. Frozen encoders see each picture and text once; what trains are the
heads (stage heads), or the encoders with them (stage full). A killed run goes on where its last checkpoint left off when
the same command is given again, and ends bit for bit where it would have.
"""

import argparse
import json
import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from multiprocessing import get_start_method
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from transformers import TrainingArguments, set_seed

from training.aligners.contrast import LOSSES
from training.aligners.pairs import Captioned, PairData, Pairs, damaged, names_of, read_pairs
from training.aligners.picture_file import PictureFile
from training.aligners.plots import draw_all
from training.aligners.token_store import TokenStore
from training.aligners.trainer import AlignerTrainer, PairCollator
from training.aligners.validation import EMBEDDINGS, Side, Validation
from training.config import AlignmentConfig, check_report_to, load_alignment_config
from training.data import pictures_of
from training.data.augmentation import open_view, picture_id_of, with_views
from training.data.features import FeatureStore, averages_of
from training.digest import digest
from training.runs.checkpoints import last_whole_checkpoint, steps_of
from training.runs.log_lines import LOG, LogLines
from training.runs.processes import join_processes
from training.runs.resources import keep_memory, training_in
from training.runs.run_settings import claim_folder
from training.scores.alignment import report
from vlm.config import AlignerConfig, load_aligner_config
from vlm.config_reader import read_yaml, to_dict
from vlm.errors import UserError
from vlm.machine import usable_cores
from vlm.model.aligner import STAGES, Aligner
from vlm.model.alignment import build_aligner, save_aligner
from vlm.model.embeddings import Precomputed
from vlm.model.text_encoders import pad
from vlm.terminal import command

log = logging.getLogger("training")
PLACES = ("data", "output")
# Settings that change nothing of what is learned
FREE = ("logging_steps", "keep_every", "chunk_size", "report_to")
VALID: dict[str, Collection[str]] = {  # settings -> what they may be
    "stage": STAGES,
    "loss": LOSSES,
    "matryoshka": ("sampled", "all"),
    "precision": ("float32", "bfloat16", "float16"),
}
SIGLIP_SCALE, SIGLIP_BIAS = 10.0, -10.0  # at the start (arXiv:2303.15343)


def run(config: AlignmentConfig, extend: bool = False) -> Path:
    """Pairs, features, training, scores, plots. With `extend` a run that is there may go on to more epochs."""
    check(config)
    keep_memory()
    set_seed(config.seed)
    process = join_processes()
    output = Path(config.output)
    sources = [source.name for source in config.sources]
    data = read_pairs(Path(config.data), sources, config.validation_share)
    if not data.train:
        raise UserError(f"{config.data} has no pictures with texts in the sources {', '.join(sources)}.")
    for source in sorted(set(sources) - {each.source for each in (*data.train, *data.validation)}):
        log.warning(
            "The source %s is left out: %s has no training pictures with texts of it.", source, config.data
        )
    preset = load_aligner_config(config.aligner)
    aligner = build_aligner(preset, str(process.device))  # what cannot be built has no right to the folder
    if isinstance(aligner.vision, Precomputed) and (config.stage == "full" or config.augmentation.views):
        raise UserError(
            "The aligner reads embeddings that were computed elsewhere: no encoder can be trained, or see changed views. "
            "Set stage to heads and augmentation.views to 0."
        )
    with process.main_process_first():
        extended_at = claim_output(config, preset, data, extend)
    if is_finished(config):
        log.info("the run is finished already; nothing was done")
        return output / "aligner"
    aligner.train_only(config.stage)
    texts = texts_of(data, config)
    with process.main_process_first():  # the others read what it wrote
        picture_of_side, text_of_side, broken = sides(aligner, config, texts)
    data = data.without(broken)
    data.skipped["broken pictures"] += len(broken)
    for reason, count in data.skipped.items():
        if count:
            log.warning("skipped, %s: %d", reason, count)
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
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(output))
    folder = output / "aligner"
    if process.is_main_process:
        save_aligner(aligner, folder, described, {})
        aligner.eval()
        validation.keep(aligner, output / EMBEDDINGS)
        draw_all(output)
        scores = report(aligner, Path(config.data), config.aligner)
        save_aligner(aligner, folder, described, scores)
    return folder


def check(config: AlignmentConfig) -> None:
    """UserError where a setting is none that there is, before anything is read or computed."""
    for name, valid in VALID.items():
        if getattr(config, name) not in valid:
            raise UserError(f"There is no {name} {getattr(config, name)!r}. Valid: {', '.join(valid)}.")
    for name in ("batch_size", "epochs", "save_steps", "validation_steps"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} must be 1 or more.")
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


def claim_output(config: AlignmentConfig, preset: AlignerConfig, data: PairData, extend: bool) -> list[int]:
    """Make sure that the run's folder is trained with these settings alone; returns the steps at which it was extended."""
    output = Path(config.output)
    remedy = "Give the settings from before, or another --output. --extend EPOCHS trains the same for longer."
    checkpoint = last_whole_checkpoint(output)
    if extend and not checkpoint:
        raise UserError(f"{output} has no checkpoint that --extend could go on from. {remedy}")
    done = steps_of(checkpoint)
    settings = {name: value for name, value in to_dict(config).items() if name not in (*FREE, *PLACES)}
    settings |= {"aligner": to_dict(preset), "pairs": digest(facts_of(data))}
    settings["batch_size"] *= PartialState().num_processes
    return claim_folder(output, settings, remedy, ("epochs",) if extend else (), done)


def facts_of(data: PairData) -> list[Any]:
    """What the pairs are made of, the same in every process."""
    pictures = [*data.train, *data.validation]
    return [
        (each.picture, each.source, each.name, each.names, each.captions, sorted(each.things))
        for each in pictures
    ]


def is_finished(config: AlignmentConfig) -> bool:
    """Whether the run's aligner is trained for these epochs, and has its scores."""
    folder = Path(config.output) / "aligner"
    if not (folder / "metrics.json").is_file():
        return False
    trained = read_yaml(folder / "config.yaml")["training"]
    return trained["epochs"] == config.epochs and bool(json.loads((folder / "metrics.json").read_text()))


def texts_of(data: PairData, config: AlignmentConfig) -> dict[str, list[str]]:
    """The texts of every picture that trains or validates. Where names are kept out, no label is one of them."""
    pictures = [*data.train, *data.validation]
    without = frozenset[str]()
    if config.without_names_of:
        named = read_pairs(Path(config.data), [config.without_names_of], 0.0)
        without = names_of([*named.train, *named.held_out], config.without_names_of)
    return {each.picture: each.texts(without) for each in pictures}


def sides(
    aligner: Aligner, config: AlignmentConfig, texts: Mapping[str, Sequence[str]]
) -> tuple[Side, Side, set[str]]:
    """A picture's or view's id -> its features, a text -> its features; where the encoders train, pixels and token ids.
    Beside them the pictures that are broken."""
    folder = Path(config.data)
    wanted = {name for name, own in texts.items() if own}
    contents = pictures_of(folder, "train", {each.name for each in config.sources}, Counter())
    pictures = ((name, content) for name, content in contents if name in wanted)
    broken: set[str] = set()
    if config.stage == "heads":
        store, tokens = FeatureStore(folder, aligner.preset.vision), TokenStore(folder, aligner.preset.text)
        if missing := [name for name in wanted if name not in store or config.augmentation.views]:
            log.info("%d pictures may have to be encoded", len(missing))
            views = with_views(pictures, config.augmentation)
            store.add(views, aligner.vision, config.augmentation, broken=broken)
        tokens.add([*(text for own in texts.values() for text in own), *aligner.class_texts], aligner.text)
        aligner.read_class_texts(tokens.__getitem__)
        preset, found = aligner.preset, (store.__getitem__, tokens.__getitem__)
        heads = (preset.picture_head, preset.text_head)
        picture_of_side, text_of_side = (
            averages_of(each) if head.pooling == "mean" and not config.feature_noise else each
            for each, head in zip(found, heads, strict=True)
        )
        return picture_of_side, text_of_side, broken
    kept = PictureFile(pictures, Path(config.output))
    aligner.read_class_texts()

    def pixels_of(view: str) -> Tensor:
        return aligner.vision.preprocess(open_view(view, kept[picture_id_of(view)], config.augmentation))

    def ids_of(text: str) -> Tensor:
        return aligner.text.tokenize([text])[0][0]

    return pixels_of, ids_of, damaged(kept.items())


@torch.no_grad()
def prepare(
    aligner: Aligner,
    config: AlignmentConfig,
    train: Sequence[Captioned],
    texts: Mapping[str, Sequence[str]],
    picture_of_side: Side,
    text_of_side: Side,
) -> None:
    """Statistics of the training features, what training alone does to the heads, and SigLIP's start."""
    sample = train[:: max(1, len(train) // 256)]
    pictures = torch.stack([picture_of_side(each.picture) for each in sample]).to(aligner.device)
    words = [text_of_side(texts[each.picture][0]) for each in sample]
    padded, mask = (each.to(aligner.device) for each in pad(words))
    features = aligner.vision(pictures) if pictures.dim() > 3 else pictures
    tokens = aligner.text(padded, mask) if padded.dim() == 2 else padded
    for head, values in ((aligner.picture_head, features.flatten(0, 1)), (aligner.text_head, tokens[mask])):
        head.normalise.take(values.float())
        head.dropout.p, head.noise = config.head_dropout, config.feature_noise
    if config.loss == "siglip":
        aligner.log_scale.fill_(math.log(SIGLIP_SCALE))
        aligner.bias.fill_(SIGLIP_BIAS)


def build_trainer(
    aligner: Aligner,
    config: AlignmentConfig,
    train: Sequence[Captioned],
    texts: Mapping[str, Sequence[str]],
    collator: PairCollator,
    validation: Validation,
    described: dict[str, Any],
) -> AlignerTrainer:
    pairs = Pairs(
        train,
        texts,
        config.sources,
        epochs=config.epochs,
        text_dropout=config.text_dropout,
        augmentation=config.augmentation,
        seed=config.seed,
    )
    at_once = config.batch_size * PartialState().num_processes
    if len(pairs) < at_once:
        raise UserError(
            f"All epochs together have {len(pairs):,} pairs, fewer than one batch of {at_once:,}. Give a smaller "
            "batch_size, more epochs or larger shares of the sources."
        )
    return AlignerTrainer(
        alignment=config,
        validation=validation,
        described=described,
        model=aligner,
        args=training_arguments(config, bool(validation.pictures)),
        train_dataset=pairs,
        eval_dataset=validation.pictures or None,
        data_collator=collator,
        callbacks=[LogLines(Path(config.output) / LOG, "aligner")],
    )


def training_arguments(config: AlignmentConfig, validates: bool) -> TrainingArguments:
    return TrainingArguments(
        output_dir=config.output,
        per_device_train_batch_size=config.batch_size,
        num_train_epochs=1,  # all epochs are laid out in the data set
        dataloader_drop_last=True,  # a batch of few pairs would hardly be a contrast
        learning_rate=config.learning_rate,
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup_share,  # below 1: a share of all steps
        lr_scheduler_type="cosine",
        max_grad_norm=config.max_gradient_norm,
        use_cpu=not torch.cuda.is_available(),
        bf16=config.precision == "bfloat16",
        fp16=config.precision == "float16",
        logging_steps=config.logging_steps,
        save_steps=config.save_steps,
        eval_strategy="steps" if validates else "no",
        eval_steps=config.validation_steps if validates else None,
        load_best_model_at_end=validates,
        metric_for_best_model="eval_loss" if validates else None,
        greater_is_better=False,
        seed=config.seed,
        data_seed=config.seed,
        report_to=config.report_to,
        remove_unused_columns=False,
        dataloader_num_workers=workers_for(config),
        ddp_find_unused_parameters=False,  # the loss uses the temperature outside of `forward`
    )


def workers_for(config: AlignmentConfig) -> int:
    """How many processes decode pictures for a GPU whose encoder trains. They are forked: the sides are not sent."""
    decodes = config.stage == "full" and torch.cuda.is_available() and get_start_method() == "fork"
    return min(8, usable_cores() - 1) if decodes else 0


def training_record(config: AlignmentConfig, pictures: int) -> dict[str, Any]:
    """How it was trained, as the aligner's folder tells it: without this machine's folders."""
    told = {key: value for key, value in to_dict(config).items() if key not in PLACES}
    return told | {"pictures": pictures}


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
    with training_in(Path(config.output), Path(config.data)):
        folder = run(config, extend=epochs is not None)
    log.info("the aligner is in %s", folder)


if __name__ == "__main__":
    main()
