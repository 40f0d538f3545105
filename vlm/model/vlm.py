"""The vision-language model: vision encoder -> connector -> language model, composed, with a tagger beside.

Says which parts train in which stage, gives the loss of a batch, and turns conversations into streamed text.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from vlm.config import AnswersConfig, ModelConfig
from vlm.engines.torch_engine import Generated, LanguageModel, Shared, build_language
from vlm.errors import UserError
from vlm.model.connectors import MlpProjector, build_connector
from vlm.model.encoders import VisionEncoder, build_vision
from vlm.model.prompts import Batch, Encoded, PromptTurn, collate, encode
from vlm.model.tagger import Tagger

STAGES = {"projector": ("connector",), "projector+lora": ("connector", "lora")}


class Sight(NamedTuple):
    """What is seen in one picture: `patch_features` [N, Dv], the pooled one first, and who names it, for the prompt."""

    patch_features: Tensor
    tagger: Tagger | None = None

    @property
    def tags(self) -> str:
        return self.tagger.tags(self.patch_features[:1])[0] if self.tagger else ""

    def asked(self, question: str) -> str:
        """The tags of what the question names."""
        return self.tagger.asked(question, self.patch_features) if self.tagger else ""


class VisualTurn(NamedTuple):
    """A question with what was seen in the pictures shown before it; answer "" for the one to come."""

    question: str
    answer: str = ""
    sights: tuple[Sight, ...] = ()


class Draft(NamedTuple):
    """An answer as generated; `ended`: the end-of-turn token came before the limit."""

    text: str
    ended: bool


class VisionLanguageModel(nn.Module):
    accepts_loss_kwargs = True  # Trainer's word for `num_items_in_batch`

    def __init__(
        self,
        vision: VisionEncoder,
        connector: MlpProjector,
        language: LanguageModel,
        tagger: Tagger | None = None,
    ) -> None:
        super().__init__()
        self.vision = vision
        self.connector = connector
        self.language = language
        self.tagger = tagger
        self.text_dropout = 0.0  # share of the text's embeddings that training hides

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

    def embed(self, batch: Batch, patch_features: Tensor | None) -> Tensor:
        """Token embeddings [B, T, Dl] with the visual tokens of all pictures [M, N, Dv], in order, in their places."""
        embeds = self.language.embed(batch.input_ids)
        if self.text_dropout:
            embeds = functional.dropout(embeds, self.text_dropout, self.training)
        if patch_features is None or not len(patch_features):
            return embeds
        weight = next(self.connector.parameters())
        visual_tokens = self.connector(patch_features.to(weight.device, weight.dtype))  # [M, N, Dl]
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
        blocks: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """A collated batch [B, T] and the features of its pictures [M, N, Dv] -> the loss, as Trainer takes it: with
        `num_items_in_batch`, its share of the mean over a batch that several steps or processes have divided."""
        embeds = self.embed(Batch(input_ids, visual_mask, attention_mask, labels), patch_features)
        device = embeds.device
        blocks = None if blocks is None else blocks.to(device)
        loss = self.language(embeds, attention_mask.to(device), labels.to(device), num_items_in_batch, blocks)
        return {"loss": loss}

    def encode(self, turns: Sequence[VisualTurn], system: str | None = None) -> Encoded:
        return self.encode_prompt(self.tag(turns), system)

    def encode_prompt(self, prompt: Sequence[PromptTurn], system: str | None = None) -> Encoded:
        return encode(self.language.tokenizer, prompt, self.vision.feature_count, system)

    def tag(self, turns: Sequence[VisualTurn]) -> list[PromptTurn]:
        """The turns with the tags of their pictures. What a question names is looked up in the latest pictures."""
        prompt: list[PromptTurn] = []
        sights: tuple[Sight, ...] = ()
        for turn in turns:
            sights = turn.sights or sights
            tags = tuple(sight.tags for sight in turn.sights)
            asked = tuple(sight.asked(turn.question) for sight in sights)
            prompt.append(PromptTurn(turn.question, turn.answer, tags, asked))
        return prompt

    def stream(
        self, turns: Sequence[VisualTurn], answers: AnswersConfig, adapter: bool, system: str | None = None
    ) -> Iterator[Generated]:
        """The answer to the last turn as it grows. Oldest turns are left out where the prompt would get too long."""
        turns = self._within_limit(turns, answers.max_prompt_tokens, system)
        embeds, attention_mask, _ = self._prompt([turns], system)
        yield from self.language.stream(embeds, attention_mask, adapter, **_generation_options(answers))

    def draft_all(
        self,
        conversations: Sequence[Sequence[VisualTurn]],
        answers: AnswersConfig,
        system: str | None = None,
        adapter: bool = True,
    ) -> list[Draft]:
        """Answers to several conversations in one batch (evaluation); `adapter` off for the base model. What stands
        before the last questions is read once where it is the same, pictures included."""
        embeds, attention_mask, shared = self._prompt(conversations, system)
        options = _generation_options(answers)
        ids = self.language.generate(embeds, attention_mask, adapter, shared, **options)
        texts = self.language.tokenizer.batch_decode(ids, skip_special_tokens=True)
        ends = set(self.language.end_ids)
        ended = [not ends.isdisjoint(row) for row in ids.tolist()]
        return [Draft(*pair) for pair in zip(texts, ended, strict=True)]

    def see(self, images: Sequence[Image.Image]) -> list[Sight]:
        return self.recognise(self.vision.see(images)) if images else []

    def recognise(self, patch_features: Tensor) -> list[Sight]:
        """Patch features [B, N, Dv], the pooled one first -> the same one by one, with the model's tagger."""
        return [Sight(each, self.tagger) for each in patch_features]

    def _prompt(
        self, conversations: Sequence[Sequence[VisualTurn]], system: str | None
    ) -> tuple[Tensor, Tensor, Shared]:
        encoded = [self.encode(turns, system) for turns in conversations]
        batch = collate(encoded, self.language.pad_id, pad_left=True)
        seen = [[sight.patch_features for turn in turns for sight in turn.sights] for turns in conversations]
        features = [each for pictures in seen for each in pictures]
        with torch.inference_mode():
            embeds = self.embed(batch, torch.stack(features) if features else None)
        beginnings = [
            (*each.ids[: each.question], *map(id, pictures))
            for each, pictures in zip(encoded, seen, strict=True)
        ]
        like = torch.tensor([beginnings.index(beginning) for beginning in beginnings], device=embeds.device)
        shared = Shared(max(each.question for each in encoded), like)
        return embeds, batch.attention_mask.to(embeds.device), shared

    def _within_limit(
        self, turns: Sequence[VisualTurn], limit: int, system: str | None
    ) -> Sequence[VisualTurn]:
        while (length := len(self.encode(turns, system).ids)) > limit:
            if len(turns) == 1:
                raise UserError(
                    f"The question takes {length} tokens and at most {limit} fit. Please shorten it or split it up."
                )
            # pictures of a turn that is left out stay: later questions may be about them
            first, second, *rest = turns
            turns = [second._replace(sights=first.sights + second.sights), *rest]
        return turns


def _generation_options(answers: AnswersConfig) -> dict[str, Any]:
    options: dict[str, Any] = {
        "max_new_tokens": answers.max_new_tokens,
        "repetition_penalty": answers.repetition_penalty,
        "do_sample": answers.temperature > 0,
    }
    if answers.temperature > 0:
        options |= {"temperature": answers.temperature, "top_p": 0.9}
    return options


def build_model(config: ModelConfig, device: str) -> VisionLanguageModel:
    """The parts of a preset on one device, without an adapter. The connector is fresh until one is loaded."""
    language = build_language(config.language, device)
    vision = build_vision(config.vision, device)
    sizes = vision.feature_count, vision.feature_size, language.embedding_size
    connector = build_connector(config.connector, *sizes).to(device)
    seen = config.vision
    tagger = None
    if seen.tags:
        looks_up = {"asks": seen.asked_tags, "colours": seen.colours, "read_names": language.read_names}
        tagger = Tagger(vision.classifier, vision.classes, seen.tags, **looks_up)
    return VisionLanguageModel(vision, connector, language, tagger)
