"""Tags: names of what a picture shows, each with its certainty, by the encoder's own classifier and by a head for the
nouns of the training pictures; how that head is fitted."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from tests.conftest import EXAMPLES
from training.adapters import tags as teaching
from training.adapters.tags import fold_of, nouns_of, teach
from training.data import Row
from training.data.augmentation import AugmentationConfig, view_ids
from training.data.features import FeatureStore
from vlm.config import VisionConfig
from vlm.model.encoders import build_encoder
from vlm.model.tags import ENCODER_SHARE, LEAST, Tagger

NAMES = ["ant", "bee", "cat", "dog"]


def tagger(count: int = 3, names: Sequence[str] = NAMES) -> Tagger:
    """Its scores are the first channels of a feature."""
    classifier = nn.Linear(len(names), len(names), bias=False)
    nn.init.eye_(classifier.weight)
    return Tagger(classifier, names, count)


def seen(tagger: Tagger, patch_features: torch.Tensor) -> list[str]:
    return tagger.tags(tagger.pool(patch_features))


def head_of(chances: dict[str, float]) -> tuple[nn.Linear, list[str]]:
    """A head that gives its nouns these probabilities, whatever it sees."""
    head = nn.Linear(4, len(chances))
    with torch.no_grad():
        head.weight.zero_(), head.bias.copy_(torch.tensor(scores_of(list(chances.values()))))
    return head, list(chances)


def scores_of(chances: list[float]) -> list[float]:
    return [math.log(chance) for chance in chances]


def test_names_come_with_their_certainty_the_likeliest_first() -> None:
    features = torch.tensor([[scores_of([0.05, 0.6, 0.1, 0.25])], [scores_of([0.7, 0.05, 0.15, 0.1])]])
    assert seen(tagger(2), features) == ["bee 60%, dog 25%", "ant 70%, cat 15%"]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_at_most_so_many_names_are_given_as_asked_for(count: int) -> None:
    (tags,) = seen(tagger(count), torch.zeros(1, 1, 4))
    assert len(tags.split(", ")) == count


def test_what_is_hardly_likely_is_left_out_but_the_first_name_is_kept() -> None:
    below = LEAST - 0.005
    features = torch.tensor([[scores_of([0.9, 0.1 - 2 * below, below, below])]])
    (tags,) = seen(tagger(4), features)
    assert tags == "ant 90%, bee 5%"
    (only,) = seen(tagger(4, [f"name {number}" for number in range(1000)]), torch.zeros(1, 1, 1000))
    assert only.startswith("name ") and only.endswith(" 0%") and "," not in only


def test_classes_of_one_name_are_one_tag_with_their_certainty_together() -> None:
    features = torch.tensor([[scores_of([0.3, 0.4, 0.2, 0.1])]])
    assert seen(tagger(3, ["rocket", "bee", "rocket", "dog"]), features) == ["rocket 50%, bee 40%, dog 10%"]


def test_the_classifier_sees_the_mean_of_the_cells_and_its_own_channels_only() -> None:
    plain = torch.tensor(scores_of([0.6, 0.2, 0.15, 0.05]))
    cells = torch.stack([plain + 1, plain - 1])
    behind = torch.randn(2, 3) * 100  # channels of inner maps
    assert seen(tagger(), torch.cat([cells, behind], dim=1)[None]) == ["ant 60%, bee 20%, cat 15%"]


def test_a_heads_nouns_stand_beside_the_encoders_classes() -> None:
    both = tagger(4)
    both.set_head(*head_of({"yak": 0.8, "Cat": 0.2}))
    features = torch.tensor([[scores_of([0.5, 0.02, 0.4, 0.08])]])
    known, learned = ENCODER_SHARE, 1 - ENCODER_SHARE
    expected = {
        "yak": 0.8 * learned,
        "Cat": 0.2 * learned + 0.4 * known,
        "ant": 0.5 * known,
    }
    assert seen(both, features) == [
        ", ".join(f"{name} {100 * chance:.0f}%" for name, chance in expected.items())
    ]
    assert seen(tagger(1), features) == ["ant 50%"]
    other = both.with_head(*head_of({"emu": 0.98, "gnu": 0.02}))
    assert seen(other, features)[0].startswith("emu 69%, ") and seen(both, features)[0].startswith("yak ")


def test_a_head_is_saved_and_loaded_without_the_encoder(tmp_path: Path) -> None:
    one, other = tagger(4), tagger(4)
    one.save(tmp_path / "none.safetensors")
    assert not list(tmp_path.iterdir())  # there is no head
    one.set_head(*head_of({"yak": 0.75, "emu": 0.25}))
    one.save(tmp_path / "tags.safetensors")
    other.load(tmp_path / "tags.safetensors")
    features = torch.randn(5, 3, 4)
    assert seen(other, features) == seen(one, features)
    assert (tmp_path / "tags.safetensors").stat().st_size < 1000


@pytest.mark.slow
def test_the_shipped_encoder_names_the_example_pictures() -> None:
    vision = build_encoder(VisionConfig(blocks=(6, 10)))
    names = Tagger(vision.classifier, vision.classes, 4)
    wanted = {
        "cat": "Egyptian cat",
        "coffee": "espresso",
        "sailboat": "schooner",
        "stop-sign": "street sign",
    }
    pictures = [Image.open(EXAMPLES / f"{name}.jpg").convert("RGB") for name in wanted]
    for expected, tags in zip(wanted.values(), seen(names, vision.see(pictures)), strict=True):
        assert tags.startswith(f"{expected} ")
        assert 1 <= len(tags.split(", ")) <= 4


def row(picture: str, noun: str = "") -> Row:
    return Row(picture, "What is this?", "A thing.", "tiny", "photo", noun, (), task="name")


def store_of(pooled: dict[str, torch.Tensor]) -> FeatureStore:
    return SimpleNamespace(pooled=lambda tagger: pooled)  # type: ignore[return-value]


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teaching, "STEPS", 150)
    monkeypatch.setattr(teaching, "DROPOUT", 0.0)


def first_names(tags: dict[str, str]) -> dict[str, str]:
    return {picture: told.split()[0] for picture, told in tags.items()}


@pytest.mark.slow
def test_what_can_be_told_apart_is_named_in_pictures_that_were_never_seen(quickly: None) -> None:
    kinds = {"yak": torch.tensor([9.0, 0, 0, 1]), "emu": torch.tensor([0, 9.0, 0, 1])}
    pooled = {
        f"{noun} {number}": kinds[noun] + 0.3 * torch.randn(4) for number in range(30) for noun in kinds
    }
    rows = [row(picture, picture.split()[0]) for picture in pooled if not picture.endswith("0")]
    ours = tagger(2)
    tags = teach(ours, rows, store_of(pooled), seed=0)
    assert tags.keys() == pooled.keys()
    assert first_names(tags) == {picture: picture.split()[0] for picture in pooled}
    assert sorted(ours.nouns) == ["emu", "yak"]
    assert teach(tagger(2), rows, store_of(pooled), seed=0) == tags


@pytest.mark.slow
def test_tags_for_training_are_those_of_heads_that_have_not_seen_the_picture(quickly: None) -> None:
    """Nothing can be told apart here but by heart: the tagger that is served knows its pictures, training must not."""
    wide = tagger(1, [f"class {number}" for number in range(64)])
    nouns = {f"{number}": ("yak", "emu")[number % 2] for number in range(40)}
    pooled = {picture: torch.randn(64) for picture in nouns}
    tags = first_names(teach(wide, [row(*pair) for pair in nouns.items()], store_of(pooled), seed=0))
    served = first_names(dict(zip(pooled, wide.tags(torch.stack([*pooled.values()])), strict=True)))
    assert sum(served[picture] == noun for picture, noun in nouns.items()) == 40
    assert sum(tags[picture] == noun for picture, noun in nouns.items()) < 30


def test_a_view_is_named_by_a_head_that_has_not_seen_its_picture() -> None:
    for number in range(50):
        picture = f"picture {number}"
        assert {fold_of(view) for view in view_ids(picture, AugmentationConfig(views=3))} == {
            fold_of(picture)
        }
    assert {fold_of(f"picture {number}") for number in range(50)} == set(range(teaching.FOLDS))


def test_a_pictures_nouns_share_it() -> None:
    rows = [
        replace(row("a", "Mallard"), accepted=("duck", "mallard")),
        replace(row("b", "yak"), task="yes"),  # the noun of a question, not of the picture
        replace(row("c"), objects=("Dog", "ball"), task=""),
    ]
    assert nouns_of(rows) == {"a": {"duck": 0.3, "mallard": 0.7}, "c": {"dog": 0.5, "ball": 0.5}}
    assert nouns_of([row("a", "yak")]) == {"a": {"yak": 1.0}}


@pytest.mark.parametrize("nouns", [[], ["yak"], ["yak", "emu"], ["yak", "yak"], ["yak", "yak", "emu"]])
@pytest.mark.slow
def test_too_few_pictures_for_a_head_are_named_all_the_same(quickly: None, nouns: list[str]) -> None:
    pooled = {f"{number}": torch.randn(4) for number in range(4)}
    rows = [row(*pair) for pair in zip(pooled, nouns, strict=False)]
    tags = teach(tagger(2), rows, store_of(pooled), seed=0)
    assert tags.keys() == pooled.keys()
    assert all("%" in told and "nan" not in told for told in tags.values())


def test_names_that_the_data_do_not_show_are_told_when_they_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(teaching, "STEPS", 2)
    pooled = {f"{number}": torch.randn(4) for number in range(8)}
    rows = [row(picture, "yak") for picture in pooled]
    known = tagger()
    teach(known, rows, store_of(pooled), seed=0)
    assert not caplog.records  # a fresh one knew nothing
    known.set_head(*head_of({"owl": 0.4, "cow": 0.3, "yak": 0.3}))
    teach(known, rows, store_of(pooled), seed=0)
    assert "knew 3 nouns, and 2 of them are forgotten" in caplog.text and known.nouns == ["yak"]
