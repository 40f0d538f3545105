"""The whole model as it trains: vision encoder -> connector -> fusion -> language model, and the loss of a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlm.config import ModelConfig
from vlm.errors import UserError
from vlm.model.eyes import Eyes, build_eyes
from vlm.model.fusion import Fusion, build_fusion
from vlm.model.fusion.fusion import Arranged
from vlm.model.language import LanguageModel, build_language
from vlm.model.prompts import Batch, Encoded, PromptTurn, encode
from vlm.model.sizes import check_fit

STAGES = {
    "projector": ("connector", "fusion"),
    "projector+lora": ("connector", "fusion", "lora"),
    # early fusion: the language model learns whole
    "projector+language": ("connector", "fusion", "language"),
}


class VisionLanguageModel(nn.Module):
    accepts_loss_kwargs = True  # Trainer's word for `num_items_in_batch`

    def __init__(self, eyes: Eyes, fusion: Fusion, language: LanguageModel) -> None:
        super().__init__()
        self.eyes, self.fusion, self.language = eyes, fusion, language
        self.text_dropout = 0.0  # share of the text's embeddings that training hides

    @property
    def connector(self) -> nn.Module:
        return self.eyes.connector

    @property
    def _no_split_modules(self) -> list[str]:
        """The layers that FSDP divides one by one, as accelerate asks for them."""
        return list(self.language.model._no_split_modules)

    def train_only(self, stage: str) -> dict[str, list[nn.Parameter]]:
        """Freeze all but the parts that `stage` trains; returns the trainable parameters by part. A fusion without
        weights is no part. Raises UserError as `check_stage` does."""
        check_stage(stage, self.language.has_lora)
        if "language" in STAGES[stage]:
            self.language.check_trained_whole()
        self.requires_grad_(False)
        parts = {
            "connector": list(self.connector.parameters()),
            "fusion": list(self.fusion.parameters()),
            "lora": self.language.lora_parameters(),
            "language": list(self.language.model.parameters()),
        }
        trained = {name: parts[name] for name in STAGES[stage] if parts[name]}
        for parameters in trained.values():
            for parameter in parameters:
                parameter.requires_grad_(True)
        self.language.trained_whole |= "language" in trained
        return trained

    def encode(self, turns: Sequence[PromptTurn], system: str | None = None) -> Encoded:
        return encode(self.language.tokenizer, turns, self.eyes.tokens_per_picture, system)

    def arrange(
        self, batch: Batch, patch_features: Tensor | None, question_ids: Tensor | None = None
    ) -> Arranged:
        """Token embeddings [B, T, Dl] and the pictures of the batch [M, N, Dv], in reading order, put together; what is
        asked about each of them, as `Eyes.question_ids` writes it."""
        embeds = self.language.embed(batch.input_ids)
        if self.text_dropout:
            embeds = functional.dropout(embeds, self.text_dropout, self.training)
        if patch_features is None or not len(patch_features):
            return self.fusion.arrange(embeds, batch, None)
        return self.fusion.arrange(embeds, batch, self.eyes.connect(patch_features, question_ids))

    def forward(
        self,
        input_ids: Tensor,
        visual_mask: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        patch_features: Tensor | None = None,
        num_items_in_batch: Tensor | None = None,
        question_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """A collated batch [B, T] and the features of its pictures [M, N, Dv] -> the loss, as Trainer takes it: with
        `num_items_in_batch`, its share of the mean over a batch that several steps or processes have divided."""
        batch = Batch(input_ids, visual_mask, attention_mask, labels)
        embeds, present, learned = self.arrange(batch, patch_features, question_ids)
        device = embeds.device
        return {"loss": self.language(embeds, present.to(device), learned.to(device), num_items_in_batch)}


def check_stage(stage: str, has_lora: bool) -> None:
    """Raise UserError for an unknown stage, for one that would train a LoRA where there is none, and for one that would
    train the language model itself where there is one."""
    if stage not in STAGES:
        raise UserError(f"There is no training stage {stage!r}. Valid: {', '.join(STAGES)}.")
    if "lora" in STAGES[stage] and not has_lora:
        without = " or ".join(name for name, parts in STAGES.items() if "lora" not in parts)
        raise UserError(f"The model has no LoRA (lora.rank is 0) for the stage {stage!r}. Train: {without}.")
    if "language" in STAGES[stage] and has_lora:
        raise UserError("To train the language model itself, without a LoRA, set lora.rank to 0.")


def build_model(config: ModelConfig, device: str) -> VisionLanguageModel:
    """The parts of a preset on one device, without an adapter. The connector is fresh until one is loaded."""
    check_fit(config)
    language = build_language(config.language, device)
    fusion = build_fusion(config.fusion, language.causal).to(device)
    return VisionLanguageModel(build_eyes(config, language.embedding_size, device), fusion, language)


@torch.no_grad()
def text_size(language: LanguageModel) -> float:
    """Root mean square of the text's embeddings as the decoder gets them: Gemma's are larger than its weights."""
    count = len(language.model.get_input_embeddings().weight)
    sample = torch.arange(0, count, max(1, count // 4096))
    return float(language.embed(sample).float().square().mean().sqrt())
