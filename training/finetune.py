"""python -m training.finetune --preset embedded: parquet -> adapter folder, in two stages.

The connector learns alone first, then connector and LoRA together with separate learning rates (LLaVA,
arXiv:2310.03744). Each stage is a run of Hugging Face's Trainer, whose checkpoints hold an adapter folder; a killed run
goes on where its last checkpoint left off when the same command is given again.
"""

import argparse
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import set_seed
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from training.adapters.conversations import (
    Collator,
    Conversations,
    check_sources,
    check_tasks,
    has_task,
    short_enough,
)
from training.adapters.tags import teach
from training.adapters.trainer import AdapterTrainer, let_frozen_weights_be, training_arguments
from training.config import (
    Slice,
    SourceConfig,
    StageConfig,
    TrainingConfig,
    check_report_to,
    load_training_config,
)
from training.data import Row, pictures_of, read_rows, sources_of
from training.data.augmentation import FALSIFIES, NO_AUGMENTATION, view_ids
from training.data.features import FeatureStore
from training.plot import draw, read_log
from training.runs.adapter_run import (
    check_lora,
    claim_output,
    falls_short,
    is_finished,
    is_trained,
    training_record,
)
from training.runs.checkpoints import last_whole_checkpoint, steps_of
from training.runs.log_lines import LOG, LogLines
from training.runs.processes import join_processes
from training.runs.resources import keep_memory, training_in
from training.runs.run_settings import SETTINGS
from vlm.config import ModelConfig, load_model_config
from vlm.errors import UserError
from vlm.model.adapter import load_adapter, load_trunk, restore_adapter, save_adapter
from vlm.model.adapter_fit import check_adapter
from vlm.model.adapter_folder import DATA_CARD, LIMITS, PLOT, TAGS_FILE, find_adapter, read_description
from vlm.model.language import weights_are_divided
from vlm.model.sizes import check_fit
from vlm.model.vlm import VisionLanguageModel, build_model, check_stage, text_size
from vlm.terminal import command
from vlm.whole_files import whole_folder, write_whole

log = logging.getLogger("training")


def train_stage(
    name: str,
    stage: StageConfig,
    model: VisionLanguageModel,
    examples: Conversations,
    validation: Conversations | None,
    config: TrainingConfig,
    model_config: ModelConfig,
    must_go_on: bool = False,
) -> None:
    """Train the stage's parts, going on from its last checkpoint if there is one, and save its adapter folder. Of a stage
    that `must_go_on` an earlier end is none."""
    folder = Path(config.output) / name
    if is_trained(folder / "adapter", name, config) and not must_go_on:
        log.info("stage %s is finished already; its adapter is loaded", name)
        restore_adapter(model, folder / "adapter")
        return
    stage = within_epochs(name, stage, examples)
    steps = stage.max_steps if stage.max_steps > 0 else steps_of_epochs(examples)
    fitting = replace(
        config,
        warmup_steps=min(config.warmup_steps, steps // 2),  # of few pictures it would last to the end
        validation_steps=config.validation_steps if validation else 0,
    )
    parts = model.train_only(stage.train)
    rates = dict.fromkeys(("connector", "fusion"), stage.connector_learning_rate)
    rates |= {"lora": stage.lora_learning_rate, "language": stage.language_learning_rate}
    groups = [{"name": part, "params": parameters, "lr": rates[part]} for part, parameters in parts.items()]
    trainer = AdapterTrainer(
        model_config=model_config,
        training_config=config,
        parameter_groups=groups,
        model=model,
        args=training_arguments(
            folder, stage, fitting, model.language.model.device.type, model.language.dtype
        ),
        train_dataset=examples,
        eval_dataset=validation,
        data_collator=Collator(model),
        callbacks=[LogLines(Path(config.output) / LOG, name)],
    )
    checkpoint = last_whole_checkpoint(folder)
    if checkpoint:
        restore_adapter(model, Path(checkpoint) / "adapter")
        model.register_load_state_dict_post_hook(let_frozen_weights_be)
    if 0 < stage.max_steps <= steps_of(checkpoint):
        trainer._save(str(folder))  # it was killed after its last step: the Trainer would train another
    else:
        with model.language.inputs_as_they_are():  # autocast casts them, and once
            trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model(str(folder))
    PartialState().wait_for_everyone()  # the folder tells that the stage is finished


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


def steps_of_epochs(examples: Conversations) -> int:
    return math.ceil(len(examples) / examples.batch_size)


def long_enough(lay: Callable[[int], Conversations], epochs: int, steps: int) -> Conversations:
    """Conversations of `epochs` epochs, or of as many as `steps` need. Each epoch is drawn by a seed of its own, so that
    those before stay as they were."""
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


def run(config: TrainingConfig, extend: bool = False) -> Path:
    """Features, two stages, adapter folder. With `extend` a run that is there may go on to more steps, in as
    many epochs as they take."""
    keep_memory()
    # Its gradients were NaN on an H100, after 50 steps with padded batches
    torch.backends.cuda.enable_cudnn_sdp(False)
    set_seed(config.seed)
    process = join_processes()
    device = str(process.device)
    check_report_to(config.report_to)
    if config.init_from and config.connector_from:
        raise UserError(
            "init_from brings a whole connector, so that connector_from has no effect. Take one out."
        )
    model_config = load_model_config(config.model)
    for planned in (config.projector_stage, config.joint_stage):
        check_stage(planned.train, bool(model_config.lora.rank))
    check_fit(model_config)  # before the output belongs to a run that cannot be
    data, output = Path(config.data), Path(config.output)
    part = Slice.parse(config.slice)
    there = {source for source, split in sources_of(data) if split == "train"}
    check_sources(there, config.source_names)  # before the features, which take long
    every_row = read_rows(data, "train", config.source_names)
    if not (output / SETTINGS).is_file():  # what has begun goes on
        check_tasks(every_row, config.sources)
    rows = [row for row in every_row if part.holds(row.picture)]
    # what cannot be loaded has no right to a new folder
    model = None if (output / SETTINGS).is_file() else start_model(config, model_config, device)
    with process.main_process_first():
        extended_at = claim_output(config, model_config, rows, extend)
    must_go_on = bool(extended_at) and falls_short(config)
    if is_finished(config) and not must_go_on:
        log.info("the run is finished already; nothing was done")
        return output / "adapter"
    model = model or start_model(config, model_config, device)
    seen = {row.picture for row in rows}
    held_out = read_rows(data, "validation", config.source_names) if config.validation_steps else []
    with process.main_process_first():  # the others read what it wrote
        store = features_of(rows, config, model_config, model.eyes.vision, held_out)
        tags = tags_of(model, rows, store, output, config.seed)
    system = model_config.answers.image_system
    looks = config.validation_steps > 0
    validation = lay_out_validation(held_out, store, tags, model, config, system) if looks else None
    if not config.init_from:
        sample = store.sample(sorted(seen))
        if config.connector_from:
            load_trunk(model.connector, Path(config.connector_from))
        else:
            model.connector.standardise(sample.to(device))
        model.connector.scale_to(text_size(model.language), sample[:64].to(device))
    for name, stage in {"projector": config.projector_stage, "joint": config.joint_stage}.items():
        if name == "joint" or not config.init_from:
            lay = partial(lay_out, rows, store, tags, model, config, system, config.sources)
            is_longer = name == "joint" and bool(extended_at)
            examples = long_enough(lay, stage.epochs, stage.max_steps if is_longer else 0)
            again = is_longer and must_go_on
            train_stage(name, stage, model, examples, validation, config, model_config, again)
            if weights_are_divided():  # and stay so: what follows needs them whole
                model = start_model(config, model_config, device)
                restore_adapter(model, output / name / "adapter")
                if model.eyes.tagger and (output / TAGS_FILE).is_file():
                    model.eyes.tagger.load(output / TAGS_FILE)
    adapter = output / "adapter"
    if not process.is_main_process:
        return adapter
    training = training_record(config, model_config.name) | {
        "device": process.device.type,
        "data_card": _fingerprint(data),
    }
    if last := last_whole_checkpoint(output / "joint"):
        training["joint_steps"] = steps_of(last)  # its epochs may have fewer than max_steps
    training |= {"extended_at": extended_at} if extended_at else {}
    if model.language.has_lora:
        alpha = model.language.apply_share(config.lora_share)
        model_config = replace(model_config, lora=replace(model_config.lora, alpha=alpha))
    with whole_folder(adapter) as folder:
        save_adapter(model, folder, model_config, training)
        if (adapter / LIMITS).is_file():  # by hand, which training on for longer does not replace
            shutil.copy(adapter / LIMITS, folder / LIMITS)
        if (data / "card.md").is_file():
            shutil.copy(data / "card.md", folder / DATA_CARD)
        draw(read_log(output / LOG), folder / PLOT)
    return adapter


def features_of(
    rows: Sequence[Row],
    config: TrainingConfig,
    model_config: ModelConfig,
    encoder: Any,
    held_out: Sequence[Row] = (),
) -> FeatureStore:
    """The features of the training pictures of `rows` and of the validation pictures of `held_out`. Only pictures that have
    a question of a known task get views: no other is ever shown as one. Where all are kept, the data are not read."""
    data = Path(config.data)
    store = FeatureStore(data, model_config.vision)
    viewed = {row.picture for row in rows if row.task in FALSIFIES}

    def ids_of(picture: str) -> list[str]:
        return [picture, *(view_ids(picture, config.augmentation) if picture in viewed else ())]

    for split, shown in {"train": rows, "validation": held_out}.items():
        wanted = {row.picture: ids_of(row.picture) for row in shown}
        if any(name not in store for ids in wanted.values() for name in ids):
            pictures = pictures_of(data, split, config.source_names)
            contents = ((name, content) for picture, content in pictures for name in wanted.get(picture, ()))
            store.add(contents, encoder, config.augmentation)
    return store


def tags_of(
    model: VisionLanguageModel, rows: Sequence[Row], store: FeatureStore, output: Path, seed: int
) -> dict[str, str]:
    """The tags of every picture, by a tagger that learns the nouns of `rows`; kept in the run's folder, so that a run
    that goes on has the same."""
    tagger = model.eyes.tagger
    if tagger is None:
        return {}
    kept, head = output / "tags.json", output / TAGS_FILE
    if not kept.is_file():
        output.mkdir(parents=True, exist_ok=True)
        tags = teach(tagger, rows, store, seed)
        tagger.save(head)
        write_whole(kept, json.dumps(tags))
    if head.is_file():
        tagger.load(head)
    return json.loads(kept.read_text(encoding="utf-8"))


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
    with training_in(Path(config.output), Path(config.data)):
        adapter = run(config, extend=steps is not None)
    log.info("the adapter is in %s", adapter)


if __name__ == "__main__":
    main()
