"""The whole model as it trains: vision encoder -> connector -> language model, and the loss of a batch."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from vlm.config import ModelConfig
from vlm.errors import UserError
from vlm.model.eyes import Eyes, build_eyes
from vlm.model.language import LanguageModel, build_language
from vlm.model.prompts import Batch, Encoded, PromptTurn, encode
from vlm.model.sizes import check_fit

STAGES = {"projector": ("connector",), "projector+lora": ("connector", "lora")}


class VisionLanguageModel(nn.Module):
    accepts_loss_kwargs = True  # Trainer's word for `num_items_in_batch`

    def __init__(self, eyes: Eyes, language: LanguageModel) -> None:
        super().__init__()
        self.eyes, self.language = eyes, language
        self.text_dropout = 0.0  # share of the text's embeddings that training hides

    @property
    def connector(self) -> nn.Module:
        return self.eyes.connector

    @property
    def _no_split_modules(self) -> list[str]:
        """The layers that FSDP divides one by one, as accelerate asks for them."""
        return list(self.language.model._no_split_modules)

    def train_only(self, stage: str) -> dict[str, list[nn.Parameter]]:
        """Freeze all but the parts that `stage` trains; returns the trainable parameters by part."""
        if stage not in STAGES:
            raise UserError(f"There is no training stage {stage!r}. Valid: {', '.join(STAGES)}.")
        self.requires_grad_(False)
        parts = {"connector": list(self.connector.parameters()), "lora": self.language.lora_parameters()}
        trained = {name: parts[name] for name in STAGES[stage]}
        for parameters in trained.values():
            for parameter in parameters:
                parameter.requires_grad_(True)
        return trained

    def encode(self, turns: Sequence[PromptTurn], system: str | None = None) -> Encoded:
        return encode(self.language.tokenizer, turns, self.eyes.tokens_per_picture, system)

    def embed(self, batch: Batch, patch_features: Tensor | None) -> Tensor:
        """Token embeddings [B, T, Dl] with the visual tokens of all pictures [M, N, Dv], in order, in their places."""
        embeds = self.language.embed(batch.input_ids)
        if self.text_dropout:
            embeds = functional.dropout(embeds, self.text_dropout, self.training)
        if patch_features is None or not len(patch_features):
            return embeds
        weight = next(self.connector.parameters())
        visual_tokens = self.connector(patch_features.to(weight.device, weight.dtype))  # [M, K, Dl]
        places = batch.visual_mask.to(embeds.device).unsqueeze(-1)
        return embeds.masked_scatter(places, visual_tokens.to(embeds.dtype))

    def forward(
        self,
        input_ids: Tensor,
        visual_mask: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        patch_features: Tensor | None = None,
        num_items_in_batch: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """A collated batch [B, T] and the features of its pictures [M, N, Dv] -> the loss, as Trainer takes it: with
        `num_items_in_batch`, its share of the mean over a batch that several steps or processes have divided."""
        embeds = self.embed(Batch(input_ids, visual_mask, attention_mask, labels), patch_features)
        device = embeds.device
        return {
            "loss": self.language(embeds, attention_mask.to(device), labels.to(device), num_items_in_batch)
        }


def build_model(config: ModelConfig, device: str) -> VisionLanguageModel:
    """The parts of a preset on one device, without an adapter. The connector is fresh until one is loaded."""
    check_fit(config)
    language = build_language(config.language, device)
    return VisionLanguageModel(build_eyes(config, language.embedding_size, device), language)


def text_size(language: LanguageModel) -> float:
    """Root mean square of the text's embeddings."""
    weight = language.model.get_input_embeddings().weight
    return float(weight[:: max(1, len(weight) // 4096)].float().square().mean().sqrt())
