"""Alignment: before any question is asked, the visual tokens lie where the words for what is seen lie."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from tests.tiny import TinyVision, tiny_model
from training.alignment import SIDES, align, embed_words
from training.data import Row
from training.features import FeatureStore
from vlm.config import VisionConfig
from vlm.errors import UserError
from vlm.model.colours import NAMED_COLOURS
from vlm.model.connectors import MlpProjector, Standardise
from vlm.model.tagger import Tagger
from vlm.model.vlm import VisionLanguageModel

NAMES = ["night", "dog"]
SEEN_BY_TAGGER = 6  # of the 8 channels; the colours are read off the other two


class PooledVision(TinyVision):
    """The shipped encoder's layout: the pooled feature first, then a grid of 2 x 2."""

    feature_count = 5

    def forward(self, pixels: Tensor) -> Tensor:
        cells = super().forward(pixels)
        return torch.cat([cells.mean(1, keepdim=True), cells], dim=1)


def aligned(folder: Path, steps: int = 400) -> tuple[VisionLanguageModel, Tensor]:
    """A model whose tagger tells black pictures from white ones, after alignment, and the features [M, 5, 8]."""
    model = tiny_model()
    model.vision = PooledVision()  # type: ignore[assignment]
    model.connector = MlpProjector(Standardise(8), 8, 64, 32, positions=5)
    rows, pictures = [], []
    for colour in ("black", "white"):
        for shade in range(8):
            image = Image.new("L", (16, 16), shade if colour == "black" else 255 - shade).convert("RGB")
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            answer = f"{colour.title()}."
            rows.append(Row(f"{colour} {shade}", "?", answer, "s", "", "n", ("n",), task="colour"))
            pictures.append((f"{colour} {shade}", buffer.getvalue()))
    store = FeatureStore(folder, VisionConfig())
    store.add(pictures, model.vision)  # type: ignore[arg-type]
    features = torch.stack([store[row.picture] for row in rows])
    classifier = nn.Linear(SEEN_BY_TAGGER, 2)
    with torch.no_grad():
        difference = (features[8:] - features[:8]).mean((0, 1))[:SEEN_BY_TAGGER]
        middle = features.mean((0, 1))[:SEEN_BY_TAGGER]
        classifier.weight.copy_(torch.stack([-20 * difference, 20 * difference]))
        classifier.bias.copy_(-classifier.weight @ middle)
    model.tagger = Tagger(classifier, NAMES, count=1)
    model.connector.standardise(features)
    align(model, rows, store, steps, seed=0)
    return model, features


def nearest(model: VisionLanguageModel, tokens: Tensor, words: list[str]) -> list[str]:
    """Visual tokens [..., Dl] -> the word that each lies nearest to, in order."""
    centre, directions = embed_words(model, words)
    cosines = (
        functional.normalize(tokens.detach() - centre, dim=-1) @ functional.normalize(directions, dim=-1).T
    )
    return [words[place] for place in cosines.argmax(-1).flatten().tolist()]


def test_visual_tokens_say_what_the_tagger_sees_in_their_cell(tmp_path: Path) -> None:
    model, features = aligned(tmp_path)
    mixed = features[0].clone()
    mixed[3:] = features[8][3:]  # black above, white below
    assert nearest(model, model.connector.layers(mixed[1:]), NAMES) == ["night", "night", "dog", "dog"]


def test_visual_tokens_say_colours_too(tmp_path: Path) -> None:
    model, features = aligned(tmp_path)
    said = nearest(model, model.connector.layers(features[:, 0]), sorted(NAMED_COLOURS))
    assert said == ["black"] * 8 + ["white"] * 8


def test_visual_tokens_are_as_long_as_words(tmp_path: Path) -> None:
    model, features = aligned(tmp_path)
    centre, words = embed_words(model, [*NAMES, *NAMED_COLOURS])
    lengths = (model.connector.layers(features) - centre).norm(dim=-1)
    assert lengths.mean().item() == pytest.approx(words.norm(dim=-1).mean().item(), rel=0.2)


def test_positions_start_from_the_words_for_where_a_cell_is(tmp_path: Path) -> None:
    model, _ = aligned(tmp_path, steps=1)
    assert model.connector.positions is not None
    pooled, *cells = model.connector.positions.detach()
    assert not pooled.any()
    _, words = embed_words(model, [word for pair in SIDES for word in pair])
    left, right, above, below = functional.normalize(words, dim=-1)
    for cell, (here, there) in zip(
        cells, [(left + above, right + below), (right + above, left + below)], strict=False
    ):
        assert functional.cosine_similarity(cell, here, dim=0) > functional.cosine_similarity(
            cell, there, dim=0
        )
        assert functional.cosine_similarity(cell, here, dim=0) > 0.9


def test_a_model_without_tags_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="vision.tags"):
        align(tiny_model(), [], FeatureStore(tmp_path, VisionConfig()), 1, 0)
