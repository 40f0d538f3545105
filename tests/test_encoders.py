"""Encoders: a feature for each cell of the picture, frozen, the inner maps' channels behind those of the last."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from tests.conftest import EXAMPLES
from vlm.config import VisionConfig
from vlm.errors import UserError
from vlm.model.encoders import EfficientNetLite2, build_encoder, describe_features

SMALL = VisionConfig(image_size=64, blocks=(6, 10))


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite2:
    return build_encoder(SMALL)


@pytest.fixture(scope="module")
def cat() -> Image.Image:
    return Image.open(EXAMPLES / "cat.jpg").convert("RGB")


def test_a_picture_is_a_grid_of_features_row_by_row(encoder: EfficientNetLite2) -> None:
    corner = Image.new("RGB", (64, 64), "white")
    corner.paste("red", (32, 0, 64, 32))  # the second cell of the first row
    plain, marked = encoder.see([Image.new("RGB", (64, 64), "white"), corner])
    assert plain.shape == (encoder.feature_count, encoder.feature_size) == (4, 1416)
    changed = (marked - plain)[:, 1280:].norm(dim=1)
    assert int(changed.argmax()) == 1


def test_the_last_maps_channels_are_the_networks_own(encoder: EfficientNetLite2, cat: Image.Image) -> None:
    pixels = encoder.preprocess(cat)[None]
    with torch.inference_mode():
        scores = encoder.network(pixels)
        ours = encoder.classifier(encoder(pixels)[..., :1280].mean(1))
    assert torch.allclose(ours, scores, atol=1e-4)


def test_pictures_are_padded_and_never_cropped(encoder: EfficientNetLite2) -> None:
    wide = Image.new("RGB", (200, 100), "black")
    pixels = encoder.preprocess(wide)
    assert pixels.shape == (3, 64, 64)
    assert pixels[:, 0].min() > 0.9 > -0.9 > pixels[:, 32].max()  # white above, black in the middle


def test_the_encoder_stays_frozen_while_the_rest_trains(encoder: EfficientNetLite2, cat: Image.Image) -> None:
    before = encoder.see([cat])
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert torch.equal(encoder.see([cat]), before)


def test_features_are_told_apart_by_what_they_depend_on() -> None:
    for changed in (
        replace(SMALL, image_size=96),
        replace(SMALL, blocks=(6,)),
        replace(SMALL, weights="other"),
    ):
        assert describe_features(changed) != describe_features(SMALL)
    assert describe_features(replace(SMALL, tags=0, layer=-1)) == describe_features(SMALL)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(SMALL, encoder="siglip"), "no vision encoder 'siglip'. Valid: efficientnet-lite2, clip"),
        (replace(SMALL, image_size=100), "multiple of 32, and 100 was given"),
        (replace(SMALL, blocks=(6, 40)), r"blocks are numbers from 0 to 20, and \[6, 40\] was given"),
        (replace(SMALL, blocks=(-1,)), "blocks are numbers from 0 to 20"),
        (replace(SMALL, encoder="clip"), "no classes of its own.*Set vision.tags to 0"),
    ],
)
def test_what_cannot_be_built_is_a_plain_message(config: VisionConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_encoder(config)
