"""Tags: the encoder's own names of what a picture shows, each with its certainty."""

import math
from collections.abc import Sequence

import pytest
import torch
from PIL import Image
from torch import nn

from tests.conftest import EXAMPLES
from vlm.config import VisionConfig
from vlm.model.encoders import build_encoder
from vlm.model.tags import LEAST, Tagger

NAMES = ["ant", "bee", "cat", "dog"]


def tagger(count: int = 3, names: Sequence[str] = NAMES) -> Tagger:
    """Its scores are the first channels of a feature."""
    classifier = nn.Linear(len(names), len(names), bias=False)
    nn.init.eye_(classifier.weight)
    return Tagger(classifier, names, count)


def scores_of(chances: list[float]) -> list[float]:
    return [math.log(chance) for chance in chances]


def test_names_come_with_their_certainty_the_likeliest_first() -> None:
    features = torch.tensor([[scores_of([0.05, 0.6, 0.1, 0.25])], [scores_of([0.7, 0.05, 0.15, 0.1])]])
    assert tagger(2).tags(features) == ["bee 60%, dog 25%", "ant 70%, cat 15%"]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_at_most_so_many_names_are_given_as_asked_for(count: int) -> None:
    (tags,) = tagger(count).tags(torch.zeros(1, 1, 4))
    assert len(tags.split(", ")) == count


def test_what_is_hardly_likely_is_left_out_but_the_first_name_is_kept() -> None:
    below = LEAST - 0.005
    features = torch.tensor([[scores_of([0.9, 0.1 - 2 * below, below, below])]])
    (tags,) = tagger(4).tags(features)
    assert tags == "ant 90%, bee 5%"
    (only,) = tagger(4, [f"name {number}" for number in range(1000)]).tags(torch.zeros(1, 1, 1000))
    assert only.startswith("name ") and only.endswith(" 0%") and "," not in only


def test_classes_of_one_name_are_one_tag_with_their_certainty_together() -> None:
    features = torch.tensor([[scores_of([0.3, 0.4, 0.2, 0.1])]])
    assert tagger(3, ["rocket", "bee", "rocket", "dog"]).tags(features) == ["rocket 50%, bee 40%, dog 10%"]


def test_the_classifier_sees_the_mean_of_the_cells_and_its_own_channels_only() -> None:
    plain = torch.tensor(scores_of([0.6, 0.2, 0.15, 0.05]))
    cells = torch.stack([plain + 1, plain - 1])
    behind = torch.randn(2, 3) * 100  # channels of inner maps
    assert tagger().tags(torch.cat([cells, behind], dim=1)[None]) == ["ant 60%, bee 20%, cat 15%"]


def test_the_shipped_encoder_names_the_example_pictures() -> None:
    vision = build_encoder(VisionConfig(blocks=(6, 10)))
    names = Tagger(vision.classifier, vision.classes, 4)
    wanted = {
        "strawberry": "strawberry",
        "fire-truck": "fire truck",
        "coffee": "espresso",
        "rocket": "rocket",
    }
    pictures = [Image.open(EXAMPLES / f"{name}.jpg").convert("RGB") for name in wanted]
    for expected, tags in zip(wanted.values(), names.tags(vision.see(pictures)), strict=True):
        assert tags.startswith(f"{expected} ")
        assert 1 <= len(tags.split(", ")) <= 4
