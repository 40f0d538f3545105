"""The one colour that a picture's thing has, where it has one; a pure function.

In: RGBA pixels. Out: one of NAMED_COLOURS, or nothing where no colour covers more than half of the thing.
"""

import numpy as np
import torch
from PIL import Image

from vlm.model.colours import NAMED_COLOURS, SHARES, UNCLEAR, name_colours


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
    counts = name_colours(torch.tensor(pixels[:, :3]).float() / 255).bincount(minlength=SHARES)
    best = int(counts.argmax())
    return NAMED_COLOURS[best] if best != UNCLEAR and counts[best] > 0.55 * len(pixels) else ""
