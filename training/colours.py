"""The one colour that a picture's thing has, where it has one; pure functions.

In: RGBA pixels. Out: one of NAMED_COLOURS, or nothing where no colour covers more than half of the thing.
Unusual: names are given only well inside a colour's range, because a person's borders between, say, red and
orange differ.
"""

import numpy as np
from PIL import Image

NAMED_COLOURS = set("red orange yellow green blue purple pink brown black white gray".split())


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
    names, counts = np.unique(name_colours(pixels[:, :3]), return_counts=True)
    best = counts.argmax()
    return str(names[best]) if counts[best] > 0.55 * len(pixels) and names[best] != "unclear" else ""


def name_colours(rgb: np.ndarray) -> np.ndarray:
    """[N, 3] 8-bit -> [N] coarse names, 'unclear' near the borders between them."""
    values = rgb.astype(np.float32) / 255
    high, low = values.max(axis=1), values.min(axis=1)
    spread = high - low
    saturation = spread / np.maximum(high, 1e-6)
    red, green, blue = values.T
    safe = np.maximum(spread, 1e-6)
    hue = np.select(
        [high == red, high == green],
        [((green - blue) / safe) % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )
    hue = hue * 60  # degrees
    grey = (saturation < 0.14) | (spread < 0.06)
    rules = [
        (high < 0.18, "black"), (grey & (high > 0.87), "white"),
        (grey & (high < 0.75) & (high > 0.3), "gray"), (saturation < 0.3, "unclear"),
        (((hue < 16) | (hue > 342)) & (saturation > 0.35) & (saturation < 0.65) & (high > 0.8), "pink"),
        ((hue > 300) & (hue <= 342) & (high > 0.6), "pink"),
        (((hue < 12) | (hue > 345)) & (saturation > 0.6) & (high > 0.5), "red"),
        ((hue >= 12) & (hue < 45) & (high < 0.62) & (high > 0.2), "brown"),
        ((hue >= 20) & (hue < 40) & (saturation > 0.65) & (high > 0.8), "orange"),
        ((hue >= 43) & (hue < 66) & (high > 0.6) & (saturation > 0.45), "yellow"),
        ((hue >= 75) & (hue < 165) & (saturation > 0.3), "green"), ((hue >= 190) & (hue < 250), "blue"),
        ((hue >= 260) & (hue <= 300), "purple"),
    ]  # fmt: skip
    return np.select([rule for rule, _ in rules], [np.array(name) for _, name in rules], np.array("unclear"))
