"""The one colour that a picture's thing has, where it has one; pure functions.

A colour is named only well inside its range, because the borders between, say, red and orange differ from person
to person. What lies between is unclear.
"""

import numpy as np
from PIL import Image

NAMED_COLOURS = tuple("red orange yellow green blue purple pink brown black white gray".split())
UNCLEAR = len(NAMED_COLOURS)


def main_colour(image: Image.Image) -> str:
    """RGBA -> the colour of more than half of its opaque pixels; empty where there is none."""
    small = image.convert("RGBA").resize((64, 64), Image.Resampling.NEAREST)  # unmixed: a zebra is not gray
    pixels = np.asarray(small).reshape(-1, 4)  # [4096, 4]
    if pixels[:, 3].min() > 200:  # nothing is cut out: the near-white background is not the thing's colour
        pixels = pixels[pixels[:, :3].min(axis=1) < 240]
    else:
        pixels = pixels[pixels[:, 3] > 200]
    if len(pixels) < 100:
        return ""
    counts = np.bincount(name_colours(pixels[:, :3].astype(np.float32) / 255), minlength=UNCLEAR + 1)
    best = int(counts.argmax())
    return NAMED_COLOURS[best] if best != UNCLEAR and counts[best] > 0.55 * len(pixels) else ""


def name_colours(rgb: np.ndarray) -> np.ndarray:
    """[..., 3] in 0 to 1 -> [...] places in NAMED_COLOURS, or UNCLEAR."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    high, low = rgb.max(-1), rgb.min(-1)
    spread = high - low
    saturation = spread / np.maximum(high, np.float32(1e-6))
    safe = np.maximum(spread, np.float32(1e-6))
    hue = np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    hue = np.where(high == red, ((green - blue) / safe) % 6, hue) * 60  # degrees
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
    places = np.full(high.shape, UNCLEAR, dtype=np.int64)
    for rule, name in reversed(rules):  # the first that holds
        places[rule] = NAMED_COLOURS.index(name) if name else UNCLEAR
    return places
