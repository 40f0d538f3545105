"""Pixels -> coarse names of colours; pure functions.

Unusual: names are given only well inside a colour's range, because a person's borders between, say, red and orange
differ; what lies between is unclear.
"""

import torch
from torch import Tensor
from torch.nn import functional

NAMED_COLOURS = tuple("red orange yellow green blue purple pink brown black white gray".split())
UNCLEAR = len(NAMED_COLOURS)
SHARES = UNCLEAR + 1  # how many shares tell the colours of a cell


def name_colours(rgb: Tensor) -> Tensor:
    """[..., 3] in 0 to 1 -> [...] places in NAMED_COLOURS, or UNCLEAR."""
    red, green, blue = rgb.unbind(-1)
    high, low = rgb.amax(-1), rgb.amin(-1)
    spread = high - low
    saturation = spread / high.clamp(min=1e-6)
    safe = spread.clamp(min=1e-6)
    hue = torch.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    hue = torch.where(high == red, ((green - blue) / safe) % 6, hue) * 60  # degrees
    grey = (saturation < 0.14) | (spread < 0.06)
    rules = [
        (high < 0.18, "black"), (grey & (high > 0.87), "white"),
        (grey & (high < 0.75) & (high > 0.3), "gray"), (saturation < 0.3, ""),
        (((hue < 16) | (hue > 342)) & (saturation > 0.35) & (saturation < 0.65) & (high > 0.8), "pink"),
        ((hue > 300) & (hue <= 342) & (high > 0.6), "pink"),
        (((hue < 12) | (hue > 345)) & (saturation > 0.6) & (high > 0.5), "red"),
        ((hue >= 12) & (hue < 45) & (high < 0.62) & (high > 0.2), "brown"),
        ((hue >= 20) & (hue < 40) & (saturation > 0.65) & (high > 0.8), "orange"),
        ((hue >= 43) & (hue < 66) & (high > 0.6) & (saturation > 0.45), "yellow"),
        ((hue >= 75) & (hue < 165) & (saturation > 0.3), "green"), ((hue >= 190) & (hue < 250), "blue"),
        ((hue >= 260) & (hue <= 300), "purple"),
    ]  # fmt: skip
    places = torch.full_like(high, UNCLEAR, dtype=torch.long)
    for rule, name in reversed(rules):  # the first that holds
        places[rule] = NAMED_COLOURS.index(name) if name else UNCLEAR
    return places


def colour_shares(pixels: Tensor, grid: int) -> Tensor:
    """[B, 3, S, S] in 0 to 1 -> what share of the whole and of each cell has which colour, [B, 1 + grid^2, SHARES]."""
    each = functional.one_hot(name_colours(pixels.permute(0, 2, 3, 1)), SHARES).permute(0, 3, 1, 2)
    cells = functional.adaptive_avg_pool2d(each.to(pixels.dtype), grid).flatten(2).transpose(1, 2)
    return torch.cat([each.to(pixels.dtype).mean((2, 3)).unsqueeze(1), cells], dim=1)
