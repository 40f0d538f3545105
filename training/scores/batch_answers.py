"""Questions about stored features -> greedy answers, many at a time, in torch. For comparisons of models that are trained
and thrown away; what the app answers is measured through its own pipeline (answering.py)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from more_itertools import chunked
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache

from vlm.model.prompts import PromptTurn, collate, end_ids
from vlm.model.vlm import VisionLanguageModel

AT_ONCE = 32
MAX_NEW_TOKENS = 24


class FeatureQuestion(NamedTuple):
    """A question, and the patch features [N, Dv] of the picture that it is about; None for a question without one."""

    question: str
    patch_features: Tensor | None


@torch.inference_mode()
def answer_in_batches(model: VisionLanguageModel, asked: Sequence[FeatureQuestion], system: str) -> list[str]:
    """All have a picture or none has. Questions of similar length stand together, so that little is padded."""
    order = sorted(range(len(asked)), key=lambda place: len(asked[place].question))
    answers = [""] * len(asked)
    for places in tqdm(list(chunked(order, AT_ONCE)), desc="answers"):
        found = _answer(model, [asked[place] for place in places], system)
        for place, text in zip(places, found, strict=True):
            answers[place] = text
    return answers


def _answer(model: VisionLanguageModel, asked: Sequence[FeatureQuestion], system: str) -> list[str]:
    language, tokenizer = model.language, model.language.tokenizer
    turns = [PromptTurn(each.question, "", ("",) * (each.patch_features is not None)) for each in asked]
    encoded = [model.encode([turn], system) for turn in turns]
    batch = collate(encoded, language.pad_id)
    pictures = [each.patch_features for each in asked if each.patch_features is not None]
    features = torch.stack(pictures) if pictures else None
    question_ids = model.eyes.question_ids([each.question for each in asked])
    embeds, present, _ = model.arrange(batch, features, question_ids)
    view = _view(model, features, question_ids)
    seen = torch.ones(len(asked), 1, dtype=torch.long, device=embeds.device) * bool(pictures)
    reader = Reader(language, present.to(embeds.device))
    ends = torch.tensor(end_ids(tokenizer), device=embeds.device)
    said = [reader.read_prompts(embeds)]
    ended = torch.isin(said[-1], ends)
    while not ended.all() and len(said) < MAX_NEW_TOKENS:
        said.append(reader.read(model.fusion.fuse(language.embed(said[-1][:, None]), seen, view)))
        ended |= torch.isin(said[-1], ends)
    model.fusion.rest()
    stop = set(ends.tolist())
    return [tokenizer.decode(_until(row, stop)).strip() for row in torch.stack(said, dim=1).tolist()]


def _view(model: VisionLanguageModel, features: Tensor | None, question_ids: Tensor | None) -> Any:
    """What the fusion sees while an answer is written, of the one picture of each row."""
    if features is None:
        return None
    visual_tokens = model.eyes.connect(features, question_ids)
    return model.fusion.view(visual_tokens.to(model.language.dtype)[:, None])


def _until(ids: Sequence[int], stop: set[int]) -> list[int]:
    return list(ids[: next((place for place, id in enumerate(ids) if id in stop), len(ids))])


class Reader:
    """Reads on in a batch of prompts that are padded on the right: each row's next token has the position behind its own
    last one, and does not see the padding between."""

    def __init__(self, language: Any, present: Tensor) -> None:
        self.language, self.present = language, present.bool()
        self.lengths = self.present.sum(1)
        self.cache = DynamicCache()

    def read_prompts(self, embeds: Tensor) -> Tensor:
        """[B, T, Dl] -> the likeliest next token of each [B]"""
        places = (self.present.cumsum(1) - 1).clamp(min=0)
        states = self._states(embeds, places)
        return self._likeliest(states[torch.arange(len(embeds)), self.lengths - 1])

    def read(self, embeds: Tensor) -> Tensor:
        """The token that each said last [B, 1, Dl] -> the next [B]"""
        self.present = torch.cat([self.present, self.present.new_ones(len(embeds), 1)], dim=1)
        states = self._states(embeds, self.lengths[:, None])
        self.lengths = self.lengths + 1
        return self._likeliest(states[:, 0])

    def _states(self, embeds: Tensor, places: Tensor) -> Tensor:
        return self.language.causal.get_decoder()(
            inputs_embeds=embeds.to(self.language.dtype),
            attention_mask=self.present.long(),
            position_ids=places,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state

    def _likeliest(self, states: Tensor) -> Tensor:
        return self.language.scores(states).argmax(-1)
