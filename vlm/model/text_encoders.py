"""Texts -> token features. Frozen and in evaluation mode, unless a training stage trains it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from more_itertools import chunked
from torch import Tensor, nn

from vlm.config import TextConfig
from vlm.errors import UserError
from vlm.weights.resolve import plain_weight_errors, resolve

TEXTS_AT_ONCE = 64


class TokenFeatures(NamedTuple):
    """Features [B, L, D] and which of them are there [B, L]; the rest is padding."""

    features: Tensor
    mask: Tensor


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor]:
    """Token ids and which are there, both [B, L]; the longest text, or `max_length`, says L."""
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    return tokens["input_ids"], tokens["attention_mask"].bool()


class SentenceEncoder(nn.Module):
    """A BERT-like encoder, such as MPNet (arXiv:2004.09297) -> the features of its last layer, class token first."""

    def __init__(self, network: Any, tokenizer: Any, max_length: int) -> None:
        super().__init__()
        self.network, self.tokenizer = network, tokenizer
        # MPNet and RoBERTa have two positions more than a text may have tokens: their tokenizers know
        known = network.config.max_position_embeddings, tokenizer.model_max_length
        self.max_length = min(max_length, *known)
        self.requires_grad_(False).eval()

    @property
    def feature_size(self) -> int:
        return self.network.config.hidden_size

    def train(self, mode: bool = True) -> "SentenceEncoder":
        """Stay in evaluation mode: the dropout of its makers is not wanted."""
        return super().train(False)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, both [B, L], as `tokenize` gives them."""
        return tokenize(self.tokenizer, texts, self.max_length)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[B, L] -> [B, L, D]"""
        return self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state

    def read(self, texts: Sequence[str]) -> TokenFeatures:
        ids, mask = (each.to(self.network.device) for each in self.tokenize(texts))
        return TokenFeatures(self(ids, mask), mask)


def read_all(encoder: SentenceEncoder, texts: Sequence[str], tokens: int) -> TokenFeatures:
    """Any number of texts, a few of like length at a time, and of each the first `tokens` at most."""
    rows: dict[int, Tensor] = {}
    for places in chunked(sorted(range(len(texts)), key=lambda place: len(texts[place])), TEXTS_AT_ONCE):
        features, mask = encoder.read([texts[place] for place in places])
        rows |= {place: row[there][:tokens] for place, row, there in zip(places, features, mask, strict=True)}
    return pad([rows[place] for place in range(len(texts))])


def pad(texts: list[Tensor]) -> TokenFeatures:
    """Texts of different lengths [L, ...] -> [B, longest, ...], and which tokens are there [B, longest]."""
    padded = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    lengths = torch.tensor([len(each) for each in texts], device=padded.device)
    return TokenFeatures(padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None])


class ClipText(SentenceEncoder):
    """CLIP's text half (arXiv:2103.00020). Its summary is in the end token, which is put first, as a class token is."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        features = super().forward(ids, mask)
        ends = mask.sum(1) - 1
        order = (torch.arange(ids.shape[1], device=ids.device) - 1).expand(len(ids), -1)
        order = torch.where(
            order < 0, ends[:, None], order
        )  # end, first, second, ...; what was last is the end itself
        return features.gather(1, order.unsqueeze(-1).expand_as(features))


TEXT_ENCODERS = ("sentence", "clip")


def load_words(weights: str) -> Any:
    """The tokenizer of a text encoder, alone."""
    from transformers import AutoTokenizer

    with plain_weight_errors(weights):
        return AutoTokenizer.from_pretrained(resolve(weights))


def build_text_encoder(config: TextConfig, device: str = "cpu") -> SentenceEncoder:
    if config.encoder not in TEXT_ENCODERS:
        raise UserError(f"There is no text encoder {config.encoder!r}. Valid: {', '.join(TEXT_ENCODERS)}.")
    from transformers import AutoModel, AutoTokenizer, CLIPModel  # takes a second to import
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # it would stand before every search in the shell
    with plain_weight_errors(config.weights):
        folder = resolve(config.weights)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if config.encoder == "clip":
            # A text model of its own would warn of the other half in the file, and a subclass without the warning finds
            # none of its weights
            both = CLIPModel.from_pretrained(folder, dtype=torch.float32)
            return ClipText(both.text_model.to(device), tokenizer, config.max_length)
        network = AutoModel.from_pretrained(folder, dtype=torch.float32)
    return SentenceEncoder(network.to(device), tokenizer, config.max_length)
