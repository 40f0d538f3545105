"""Pictures -> what is seen in them: visual tokens and tags. The part of the model that every engine is served by."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from vlm.config import ModelConfig
from vlm.config_reader import PartConfig
from vlm.errors import UserError
from vlm.model.connectors import build_connector, connector_settings, token_count
from vlm.model.connectors.connector import NO_WORD, Connector
from vlm.model.encoder import Encoder
from vlm.model.encoders import build_encoder
from vlm.model.fusion import fusion_settings
from vlm.model.tags import Tagger
from vlm.model.text_encoders import load_words


class Sight(NamedTuple):
    """What is seen in one picture: visual tokens [K, Dl], and tags for the prompt."""

    visual_tokens: Tensor
    tags: str = ""


class QuestionWords:
    """Questions -> word pieces [B, T], NO_WORD behind the last; the longest question, or `length`, says T."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def __call__(self, questions: Sequence[str]) -> Tensor:
        pieces = self.tokenizer(list(questions), truncation=True, max_length=self.length)["input_ids"]
        rows = [torch.tensor(each, dtype=torch.long) for each in pieces]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=NO_WORD)


class Eyes(nn.Module):
    """Vision encoder and connector, with a tagger beside them if the encoder has classes. `tokens_per_picture` is how many
    positions of a prompt mark a picture; `words` writes questions in word pieces, for a connector that reads them."""

    def __init__(
        self,
        vision: Encoder,
        connector: Connector,
        tokens_per_picture: int,
        tagger: Tagger | None,
        words: QuestionWords | None = None,
    ) -> None:
        super().__init__()
        self.vision, self.connector, self.tagger, self.words = vision, connector, tagger, words
        self.tokens_per_picture = tokens_per_picture

    @torch.inference_mode()
    def see(self, images: Sequence[Image.Image], question: str = "") -> list[Sight]:
        """RGB pictures of any size, and what is asked where they are shown."""
        if not images:
            return []
        features = self.vision.see(images)
        visual_tokens = self.connect(features, self.question_ids([question] * len(images)))
        return [Sight(*pair) for pair in zip(visual_tokens, self.name(features), strict=True)]

    def connect(self, patch_features: Tensor, question_ids: Tensor | None) -> Tensor:
        """Patch features [B, N, Dv], and the word pieces of what is asked [B, T] -> visual tokens [B, K, Dl]"""
        weight = next(self.connector.parameters())
        asked = None if question_ids is None else question_ids.to(weight.device)
        return self.connector(patch_features.to(weight.device, weight.dtype), asked)

    def question_ids(self, questions: Sequence[str]) -> Tensor | None:
        """What is asked about each of B pictures, as the connector reads it: word pieces [B, T], NO_WORD behind the last.
        None for one that does not."""
        return self.words(questions) if self.words else None

    def name(self, patch_features: Tensor) -> list[str]:
        """Patch features [B, N, Dv] -> the tags of each picture, "" without a tagger."""
        return (
            self.tagger.tags(self.tagger.pool(patch_features)) if self.tagger else [""] * len(patch_features)
        )


def build_eyes(config: ModelConfig, embedding_size: int, device: str = "cpu") -> Eyes:
    """The encoder with its weights, and a fresh connector until an adapter is loaded."""
    vision = build_encoder(config.vision, device)
    connector = build_connector(config.connector, vision.feature_size, embedding_size).to(device)
    tagger = Tagger(vision.classifier, vision.classes, config.vision.tags) if config.vision.tags else None
    visual_tokens = token_count(config.connector, vision.feature_count)
    positions = fusion_settings(config.fusion).positions(visual_tokens)
    return Eyes(vision, connector, positions, tagger, question_words(config.connector, connector))


def question_words(config: PartConfig, connector: Connector) -> QuestionWords | None:
    """Raises UserError where the text encoder has more word pieces than the connector knows."""
    if not connector.reads_questions:
        return None
    settings: Any = connector_settings(config)
    tokenizer = load_words(settings.instructions)
    if len(tokenizer) > settings.vocabulary:
        raise UserError(
            f"connector.vocabulary is {settings.vocabulary}, and the text encoder {settings.instructions} has "
            f"{len(tokenizer)} word pieces. Set it to that."
        )
    return QuestionWords(tokenizer, settings.text_length)
