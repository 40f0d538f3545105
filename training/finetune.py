"""python -m training.finetune --preset embedded: parquet -> adapter folder, in two stages.

The connector learns alone first, then connector and LoRA together with separate learning rates (LLaVA,
arXiv:2310.03744). Each stage is a run of Hugging Face's Trainer, whose checkpoints hold an adapter folder; a killed run
goes on where its last checkpoint left off when the same command is given again.
"""

import argparse
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from accelerate import PartialState
from torch import Tensor
from transformers import set_seed
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from training.adapters.conversations import check_sources, check_tasks
from training.adapters.encoding import features_of
from training.adapters.epochs import lay_out, lay_out_validation, long_enough
from training.adapters.stage import train_stage
from training.adapters.tags import tags_of
from training.config import Slice, TrainingConfig, check_counts, check_report_to, load_training_config
from training.data import Row, read_rows, sources_of
from training.plot import draw, read_log
from training.runs.adapter_run import check_lora, claim_output, falls_short, is_finished, training_record
from training.runs.checkpoints import last_whole_checkpoint, steps_of
from training.runs.log_lines import LOG
from training.runs.processes import join_processes
from training.runs.resources import GOES_ON, keep_memory, training_in
from training.runs.run_settings import SETTINGS
from vlm.chat.answer import Style
from vlm.config import ModelConfig, load_model_config
from vlm.errors import UserError
from vlm.model.adapter import load_adapter, load_trunk, restore_adapter, save_adapter
from vlm.model.adapter_fit import check_adapter
from vlm.model.adapter_folder import DATA_CARD, LIMITS, PLOT, TAGS_FILE, find_adapter, read_description
from vlm.model.language import weights_are_divided
from vlm.model.sizes import check_fit
from vlm.model.vlm import VisionLanguageModel, build_model, check_stage, text_size
from vlm.terminal import command
from vlm.whole_files import whole_folder

log = logging.getLogger("training")
SPARE = (
    "in a copy of the preset choose a smaller batch_size with as much more gradient_accumulation, or "
    f"gradient_checkpointing: true (fewer pictures with --slice spare the machine's memory only), and {GOES_ON}"
)


def run(config: TrainingConfig, extend: bool = False) -> Path:
    """Features, two stages, adapter folder. With `extend` a run that is there may go on to more steps, in as
    many epochs as they take."""
    keep_memory()
    # Its gradients were NaN on an H100, after 50 steps with padded batches
    torch.backends.cuda.enable_cudnn_sdp(False)
    set_seed(config.seed)
    process = join_processes()
    device, output = str(process.device), Path(config.output)
    model_config = check(config)
    rows = rows_to_learn(config)
    # what cannot be loaded has no right to a new folder
    model = None if has_begun(config) else start_model(config, model_config, device)
    with process.main_process_first():
        extended_at = claim_output(config, model_config, rows, extend)
    if is_finished(config) and not (extended_at and falls_short(config)):
        log.info("the run is finished already; nothing was done")
        return output / "adapter"
    model = model or start_model(config, model_config, device)
    model = train_stages(model, config, model_config, rows, bool(extended_at))
    if process.is_main_process:
        write_adapter(model, config, model_config, extended_at)
    return output / "adapter"


def check(config: TrainingConfig) -> ModelConfig:
    """The model's preset. UserError where it cannot be trained with these settings, before anything is read or loaded."""
    check_report_to(config.report_to)
    check_numbers(config)
    if config.init_from and config.connector_from:
        raise UserError(
            "init_from brings a whole connector, so that connector_from has no effect. Take one out."
        )
    model_config = load_model_config(config.model)
    for planned in (config.projector_stage, config.joint_stage):
        check_stage(planned.train, bool(model_config.lora.rank))
    if model_config.language.dtype == "float16":  # without loss scaling, small gradients would be zero in it
        raise UserError(
            f"A model in float16 cannot be trained. Set language.dtype of the preset {model_config.name!r} to bfloat16, "
            "or to float32."
        )
    # Before the output belongs to a run that cannot be; what has begun goes on
    check_fit(model_config, 0 if has_begun(config) else config.max_tokens)
    return model_config


def check_numbers(config: TrainingConfig) -> None:
    if config.style not in get_args(Style):
        raise UserError(f"There is no style {config.style!r}. Valid: {', '.join(get_args(Style))}.")
    stages = {"projector_stage": config.projector_stage, "joint_stage": config.joint_stage}
    counts = ("batch_size", "gradient_accumulation", "save_steps", "logging_steps")
    check_counts({name: getattr(config, name) for name in counts})
    check_counts({f"{name}.epochs": stage.epochs for name, stage in stages.items()})
    for name, stage in stages.items():
        if stage.max_steps < 1 and stage.max_steps != -1 and not has_begun(config):
            raise UserError(f"{name}.max_steps must be 1 or more, or -1 for all of its epochs.")


def has_begun(config: TrainingConfig) -> bool:
    return (Path(config.output) / SETTINGS).is_file()


def rows_to_learn(config: TrainingConfig) -> list[Row]:
    """The training rows of the preset's sources and slice. UserError where there are none of them."""
    part = Slice.parse(config.slice)
    there = {source for source, split in sources_of(Path(config.data)) if split == "train"}
    check_sources(there, config.source_names)  # before the features, which take long
    rows = read_rows(Path(config.data), "train", config.source_names)
    if not has_begun(config):  # what has begun goes on
        check_tasks(rows, config.sources)
    return [row for row in rows if part.holds(row.picture)]


def train_stages(
    model: VisionLanguageModel,
    config: TrainingConfig,
    model_config: ModelConfig,
    rows: Sequence[Row],
    is_longer: bool,
) -> VisionLanguageModel:
    """The model once both stages have trained it; an adapter that is gone on from has had the first. `is_longer`: the
    joint stage of a run that is there goes on."""
    output, looks = Path(config.output), config.validation_steps > 0
    held_out = read_rows(Path(config.data), "validation", config.source_names) if looks else []
    with PartialState().main_process_first():  # the others read what it wrote
        store = features_of(rows, config, model_config, model.eyes.vision, held_out)
        tags = tags_of(model, rows, held_out, store, output, config.seed)
    system = model_config.answers.image_system
    validation = lay_out_validation(held_out, store, tags, model, config, system) if looks else None
    if not config.init_from:
        begin_connector(model, config, store.sample(sorted({row.picture for row in rows})))
    for name, stage in {"projector": config.projector_stage, "joint": config.joint_stage}.items():
        if name == "projector" and config.init_from:
            continue
        lay = partial(lay_out, rows, store, tags, model, config, system, config.sources)
        more = is_longer and name == "joint"
        examples = long_enough(lay, stage.epochs, stage.max_steps if more else 0)
        must_go_on = more and falls_short(config)
        train_stage(name, stage, model, examples, validation, config, model_config, must_go_on)
        if weights_are_divided():  # and stay so: what follows needs them whole
            model = start_model(config, model_config, str(PartialState().device))
            restore_adapter(model, output / name / "adapter")
            if model.eyes.tagger and (output / TAGS_FILE).is_file():
                model.eyes.tagger.load(output / TAGS_FILE)
    return model


def begin_connector(model: VisionLanguageModel, config: TrainingConfig, sample: Tensor) -> None:
    """A fresh connector, or a trunk that was trained before: visual tokens begin as large as text. `sample`: features of
    some training pictures [S, N, Dv]."""
    sample = sample.to(PartialState().device)
    if config.connector_from:
        load_trunk(model.connector, Path(config.connector_from))
    else:
        model.connector.standardise(sample)
    model.connector.scale_to(text_size(model.language), sample[:64])


def write_adapter(
    model: VisionLanguageModel, config: TrainingConfig, model_config: ModelConfig, extended_at: Sequence[int]
) -> None:
    """The run's adapter, with the share of its LoRA that is applied, the data's card and the plot."""
    data, output = Path(config.data), Path(config.output)
    training = training_record(config, model_config.name) | {
        "device": PartialState().device.type,
        "data_card": _fingerprint(data),
    }
    if last := last_whole_checkpoint(output / "joint"):
        training["joint_steps"] = steps_of(last)  # its epochs may have fewer than max_steps
    training |= {"extended_at": extended_at} if extended_at else {}
    if model.language.has_lora:
        alpha = model.language.apply_share(config.lora_share)
        model_config = replace(model_config, lora=replace(model_config.lora, alpha=alpha))
    with whole_folder(output / "adapter") as folder:
        save_adapter(model, folder, model_config, training)
        if (output / "adapter" / LIMITS).is_file():  # by hand, which training on for longer does not replace
            shutil.copy(output / "adapter" / LIMITS, folder / LIMITS)
        if (data / "card.md").is_file():
            shutil.copy(data / "card.md", folder / DATA_CARD)
        draw(read_log(output / LOG), folder / PLOT)


def start_model(config: TrainingConfig, model_config: ModelConfig, device: str) -> VisionLanguageModel:
    """The model as training starts: with the adapter to go on from, or a fresh one."""
    unset_hf_deepspeed_config()  # the stage before set it, and weights divided while they load keep their precision
    known = find_adapter(config.init_from) if config.init_from else None
    if known:
        check_adapter(known, model_config)
        check_lora(known, model_config)
    model = build_model(model_config, device)
    if known:
        load_adapter(model, known, trainable=True)
        if model.language.has_lora:  # all of what was learned, of which a share was applied
            told = read_description(known).get("training") or {}
            model.language.apply_share(1 / told.get("lora_share", 1.0))
    elif model_config.lora.rank:
        model.language.add_lora(model_config.lora)
    model.language.prepare_training(config.gradient_checkpointing)
    model.text_dropout, model.connector.noise = config.text_dropout, config.feature_noise
    return model


def _fingerprint(folder: Path) -> str | None:
    card = folder / "card.json"
    return json.loads(card.read_text(encoding="utf-8")).get("fingerprint") if card.is_file() else None


@command("finetune")
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.finetune", description=__doc__)
    parser.add_argument("--preset", default="embedded", help="a training preset's name or a YAML file")
    parser.add_argument("--data", help="folder of parquet files (default: the preset's)")
    parser.add_argument("--output", help="folder of the run; the adapter is OUTPUT/adapter")
    parser.add_argument("--init-from", help="adapter (folder, or user/name on the hub) to go on from")
    parser.add_argument("--slice", help="3/20: the third of twenty parts of the pictures only")
    parser.add_argument(
        "--extend", type=int, metavar="STEPS", help="train the joint stage of a run to so many steps in all"
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument("--report-to", help="wandb, trackio or tensorboard; their package must be installed")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    overrides = vars(arguments)
    steps = overrides.pop("extend")
    if steps is not None and steps < 1:
        parser.error("--extend must be 1 or more")
    config = load_training_config(overrides.pop("preset"), **overrides)
    if steps:
        config = replace(config, joint_stage=replace(config.joint_stage, max_steps=steps))
    with training_in(Path(config.output), Path(config.data), SPARE):
        adapter = run(config, extend=steps is not None)
    log.info("the adapter is in %s", adapter)


if __name__ == "__main__":
    main()
