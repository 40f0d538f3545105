"""One stage of a run: the parts that it trains, from its last checkpoint to its adapter folder."""

import logging
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState

from training.adapters.conversations import Collator, Conversations
from training.adapters.epochs import steps_of_epochs, within_epochs
from training.adapters.trainer import AdapterTrainer, let_frozen_weights_be, training_arguments
from training.config import StageConfig, TrainingConfig
from training.runs.adapter_run import is_trained
from training.runs.checkpoints import last_whole_checkpoint, steps_of
from training.runs.log_lines import LOG, LogLines
from vlm.config import ModelConfig
from vlm.model.adapter import restore_adapter
from vlm.model.vlm import VisionLanguageModel

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
