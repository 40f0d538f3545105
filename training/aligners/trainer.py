"""Hugging Face's Trainer for an aligner: batches of pairs, gradient caching, recall while it trains, its own checkpoints.

A checkpoint holds the aligner's folder in float32 in place of the whole model, beside the Trainer's optimizer, scheduler,
scaler, random numbers and history, so that a killed run goes on exactly where it was.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from multiprocessing import get_start_method
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn
from transformers import TrainerControl, TrainingArguments

from training.aligners.contrast import Loss, matryoshka_loss
from training.aligners.gradient_cache import cached_backward, gather
from training.aligners.pairs import Captioned, Pair, Pairs
from training.aligners.validation import Side, Validation
from training.config import AlignmentConfig
from training.runs.checkpoints import OrderedTrainer
from training.runs.log_lines import LOG, LogLines
from vlm.errors import UserError
from vlm.machine import usable_cores
from vlm.model.aligner import Aligner, EmbeddedPairs
from vlm.model.alignment import restore_aligner, save_aligner
from vlm.model.text_encoders import pad


class PairCollator:
    """Pairs -> the arguments of `Aligner.forward`, what belongs together by number, and which texts are there."""

    def __init__(self, picture_of: Side, text_of: Side) -> None:
        self.picture_of, self.text_of = picture_of, text_of

    def __call__(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        texts, mask = pad([self.text_of(pair.text) for pair in pairs])
        return {
            "pictures": torch.stack([self.picture_of(pair.view) for pair in pairs]),
            "texts": texts,
            "mask": mask,
            "picture_numbers": torch.tensor([pair.picture_number for pair in pairs]),
            "text_numbers": torch.tensor([pair.text_number for pair in pairs]),
            "has_text": torch.tensor([pair.has_text for pair in pairs]),
        }


class AlignerTrainer(OrderedTrainer):
    """`described`: how it is trained, for the aligner's folder."""

    control: TrainerControl

    def __init__(
        self, *, alignment: AlignmentConfig, validation: Validation, described: dict[str, Any], **parts: Any
    ) -> None:
        super().__init__(**parts)
        self.alignment, self.validation, self.described = alignment, validation, described
        self.losses: dict[str, list[float]] = defaultdict(list)

    def new_optimizer(self, model: Any) -> torch.optim.Optimizer:
        """AdamW; matrices decay, vectors and the temperature do not."""
        aligner: Aligner = self.model  # type: ignore[assignment]
        # Encoders' weights that nothing depends on stay among them, as earlier checkpoints have them in their places
        trained = [each for each in aligner.parameters() if each.requires_grad or aligner.encoders_trained]
        groups = [
            {"params": [each for each in trained if each.ndim > 1], "weight_decay": self.args.weight_decay},
            {"params": [each for each in trained if each.ndim < 2], "weight_decay": 0.0},
        ]
        betas = (self.args.adam_beta1, self.args.adam_beta2)
        return torch.optim.AdamW(groups, lr=self.args.learning_rate, betas=betas)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        model.train()
        batch = self._prepare_inputs(inputs)
        aligner: Aligner = self.model  # type: ignore[assignment]
        size = self.alignment.chunk_size or len(batch["pictures"])
        pieces = list(zip(*(batch[name].split(size) for name in ("pictures", "texts", "mask")), strict=True))

        def embed(*piece: Tensor) -> EmbeddedPairs:
            with self.compute_loss_context_manager():
                return model(*piece)

        def loss_of(pictures: Tensor, texts: Tensor) -> Loss:
            return pair_loss(aligner, pictures, texts, batch, self.alignment, self.drawn_dims())

        loss = cached_backward(
            embed,
            pieces,
            loss_of,
            [aligner.log_scale, aligner.bias],
            self.accelerator.backward,
            lambda: self.accelerator.no_sync(model),
        )
        for name, value in loss._asdict().items():
            self.losses[name].append(value.item())
        return loss.total

    def drawn_dims(self) -> tuple[int, ...]:
        """The shorter dims that this step's Matryoshka loss looks at."""
        dims = self.model.dims[1:] or self.model.dims  # type: ignore[union-attr]
        if self.alignment.matryoshka == "all":
            return dims
        return (random.Random(f"{self.alignment.seed} {self.state.global_step}").choice(dims),)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= {
                f"{name}_loss": sum(each) / len(each) for name, each in self.losses.items() if name != "total"
            }
            logs["scale"] = self.model.scale  # type: ignore[union-attr]
            self.losses.clear()
        of_all = self.state.epoch  # all epochs are one to the Trainer
        self.state.epoch = (of_all or 0) * self.alignment.epochs
        try:
            super().log(logs, start_time)
        finally:
            self.state.epoch = of_all

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        scores = self.validation.scores(self.model, self.alignment.loss)  # type: ignore[arg-type]
        metrics = {f"eval_{name}": value for name, value in scores.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Among the steps that are saved: of the best of all there may be no checkpoint, and then an early one would do."""
        return self.control.should_save and super()._determine_best_metric(metrics, trial)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir) / "aligner"  # type: ignore[arg-type]
            save_aligner(self.model, folder, self.described, {}, torch.float32)  # type: ignore[arg-type]

    def save_beside(self, folder: Path) -> None:
        step = self.state.global_step
        if self.alignment.keep_every and step % self.alignment.keep_every == 0:
            save_aligner(self.model, folder / f"aligner-{step}", self.described, {})  # type: ignore[arg-type]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        restore_aligner(self.model, Path(resume_from_checkpoint) / "aligner")  # type: ignore[arg-type]
        if self.alignment.stage == "full":  # as it did when the checkpoint was written
            self.model.read_class_texts()  # type: ignore[operator,union-attr]

    def _load_best_model(self) -> None:
        restore_aligner(self.model, Path(self.state.best_model_checkpoint) / "aligner")  # type: ignore[arg-type]


def pair_loss(
    aligner: Aligner,
    pictures: Tensor,
    texts: Tensor,
    batch: dict[str, Tensor],
    config: AlignmentConfig,
    dims: Sequence[int],
) -> Loss:
    """The loss of the pairs of all processes."""
    numbers, words = gather(batch["picture_numbers"]), gather(batch["text_numbers"])
    same = (numbers[:, None] == numbers) | (words[:, None] == words)
    has_text = gather(batch["has_text"].long()).bool()
    scale, bias = aligner.current_scale(), aligner.bias
    return matryoshka_loss(config.loss, gather(pictures), gather(texts), scale, bias, same, has_text, dims)


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
