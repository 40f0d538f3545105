"""Hugging Face's Trainer for an adapter: a learning rate for each part, and checkpoints that hold the adapter folder."""

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import save_fsdp_optimizer
from transformers import EvalPrediction, TrainingArguments
from transformers.trainer import SCHEDULER_NAME

from training.config import StageConfig, TrainingConfig
from training.runs.adapter_run import training_record
from training.runs.checkpoints import OrderedTrainer
from vlm.config import ModelConfig
from vlm.machine import usable_cores
from vlm.model.adapter import save_adapter
from vlm.model.prompts import IGNORE
from vlm.model.vlm import VisionLanguageModel


class AdapterTrainer(OrderedTrainer):
    """Trainer whose checkpoints hold the adapter folder in place of the whole model, and whose log names the learning
    rate of each part."""

    def __init__(
        self,
        *,
        model_config: ModelConfig,
        training_config: TrainingConfig,
        parameter_groups: list[dict[str, Any]],
        **parts: Any,
    ) -> None:
        super().__init__(compute_metrics=mean_over_tokens, **parts)
        self.model_config, self.training_config = model_config, training_config
        self.parameter_groups = parameter_groups

    def new_optimizer(self, model: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameter_groups, weight_decay=0.0)

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """In place of the loss what `mean_over_tokens` reads: the loss of the batch's tokens together and how many they
        are, a part of both for each of its B rows, [B, 2]. The Trainer's mean over rows would change with the batches."""
        batch = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            mean = model(**batch)["loss"]
        tokens = (batch["labels"][:, 1:] != IGNORE).sum().to(mean)
        rows = len(batch["labels"])
        parts = (torch.stack([mean * tokens, tokens]) / rows).expand(rows, 2)
        return None, parts, parts

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if logs.pop("learning_rate", None) is not None and self.optimizer:
            logs |= {f"learning_rate/{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self.args.should_save:  # every process comes here, and one writes
            return
        folder = Path(output_dir or self.args.output_dir)  # type: ignore[arg-type]
        folder.mkdir(parents=True, exist_ok=True)
        training = training_record(self.training_config, self.model_config.name)
        training |= {"lora_share": 1.0}  # all of the LoRA is here; the finished adapter has the share
        config, dtype = self.model_config, torch.float32
        save_adapter(self.model, folder / "adapter", config, training, dtype, state_dict)  # type: ignore

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """As the Trainer does, but without the frozen weights where those are divided among processes."""
        if self.is_deepspeed_enabled:
            self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
        elif self.is_fsdp_enabled:
            plugin = self.accelerator.state.fsdp_plugin
            save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        else:
            return super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)  # type: ignore[union-attr]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """`train_stage` has restored the adapter already, before the weights were divided among processes."""


def mean_over_tokens(evaluated: EvalPrediction) -> dict[str, float]:
    """Of all rows of an evaluation [N, 2]: nats a token; in several processes nearly, where a last batch is filled up."""
    loss, tokens = evaluated.predictions.sum(0)  # type: ignore[union-attr]
    return {"loss": float(loss / tokens)}


def let_frozen_weights_be(model: VisionLanguageModel, keys: Any) -> None:
    """DeepSpeed's checkpoint lacks the frozen weights and has no scales of 4-bit ones. Both are in the model already, so
    neither is an error."""
    keys.missing_keys.clear()
    keys.unexpected_keys.clear()


def training_arguments(
    folder: Path, stage: StageConfig, config: TrainingConfig, device: str, dtype: torch.dtype
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        num_train_epochs=1,  # all epochs are laid out in the data set
        max_steps=stage.max_steps,
        warmup_steps=config.warmup_steps,
        lr_scheduler_type="cosine",
        max_grad_norm=config.max_gradient_norm,
        use_cpu=device == "cpu",
        bf16=dtype is torch.bfloat16,  # autocast: trained parameters stay in float32
        logging_steps=config.logging_steps,
        save_steps=config.save_steps,
        eval_strategy="steps" if config.validation_steps else "no",
        eval_steps=config.validation_steps or None,
        per_device_eval_batch_size=config.batch_size,
        seed=config.seed,
        data_seed=config.seed,
        report_to=config.report_to,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_num_workers=min(8, usable_cores() - 1) if device == "cuda" else 0,  # a CPU trains itself
    )
