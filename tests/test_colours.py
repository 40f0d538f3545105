"""Pixels' colours by name, and their shares in the cells that the encoder's features have."""

import pytest
import torch
from PIL import Image

from vlm.config import VisionConfig, load_model_config
from vlm.errors import UserError
from vlm.model.colours import NAMED_COLOURS, SHARES, UNCLEAR, colour_shares, name_colours
from vlm.model.encoders import build_vision


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((220, 20, 20), "red"), ((255, 150, 30), "orange"), ((250, 220, 40), "yellow"), ((30, 160, 60), "green"),
        ((40, 80, 220), "blue"), ((150, 50, 220), "purple"), ((250, 150, 170), "pink"), ((110, 60, 20), "brown"),
        ((10, 10, 10), "black"), ((250, 250, 250), "white"), ((130, 130, 130), "gray"), ((0, 128, 128), ""),
    ],
)  # fmt: skip
def test_colours_are_named_where_they_are_clear(rgb: tuple[int, int, int], name: str) -> None:
    place = int(name_colours(torch.tensor(rgb) / 255))
    assert place == (NAMED_COLOURS.index(name) if name else UNCLEAR)


def picture() -> Image.Image:
    """White, with a red upper left quarter and a blue lower right one."""
    image = Image.new("RGB", (256, 256), "white")
    image.paste("red", (0, 0, 128, 128))
    image.paste("blue", (128, 128, 256, 256))
    return image


def test_shares_are_of_the_whole_and_of_each_cell() -> None:
    pixels = torch.tensor(list(picture().getdata())).view(1, 256, 256, 3).permute(0, 3, 1, 2) / 255
    shares = colour_shares(pixels, grid=4)
    assert shares.shape == (1, 17, SHARES)
    assert torch.allclose(shares.sum(-1), torch.ones(1, 17))
    red, blue, white = (NAMED_COLOURS.index(name) for name in ("red", "blue", "white"))
    assert shares[0, 0, [red, blue, white]].tolist() == [0.25, 0.25, 0.5]
    assert shares[0, 1:, red].view(4, 4)[:2, :2].eq(1).all() and shares[0, 1:, red].sum() == 4
    assert shares[0, 1:, blue].view(4, 4)[2:, 2:].eq(1).all() and shares[0, 1:, blue].sum() == 4


def test_the_encoders_last_channels_are_the_shares_and_the_others_stay_as_they_are() -> None:
    config = load_model_config("embedded").vision
    assert config.colours
    with_colours, without = build_vision(config), build_vision(VisionConfig(blocks=config.blocks))
    assert with_colours.feature_size == without.feature_size + SHARES
    seen, plain = with_colours.see([picture()]), without.see([picture()])
    assert seen.shape == (1, 17, with_colours.feature_size)
    assert torch.equal(seen[..., :-SHARES], plain)
    assert seen[0, 1, -SHARES:].argmax() == NAMED_COLOURS.index("red")
    assert seen[0, 16, -SHARES:].argmax() == NAMED_COLOURS.index("blue")


def test_clip_has_no_shares_of_colours() -> None:
    with pytest.raises(UserError, match=r"vision\.colours to false"):
        build_vision(VisionConfig(encoder="clip", tags=0, colours=True))
