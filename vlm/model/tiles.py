"""A picture as its whole and tiles of it, for an encoder whose input is small: LLaVA-NeXT's any-resolution grid
(arXiv:2310.03744, section 5.1; blog of January 2024).

The number of tiles is the same for every picture, and their grid is the one that shows most of it: a long picture becomes a
row, a square one a square. So all pictures have equally many features.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from vlm.inputs.images import WHITE
from vlm.model.encoder import Encoder


def grids(tiles: int) -> list[tuple[int, int]]:
    """(columns, rows) of all grids of so many tiles."""
    return [(columns, tiles // columns) for columns in range(1, tiles + 1) if tiles % columns == 0]


def best_grid(width: int, height: int, tiles: int, side: int) -> tuple[int, int]:
    """The grid on which a picture is shown with most pixels; of equal ones the squarest."""

    def shown(grid: tuple[int, int]) -> tuple[float, int]:
        scale = min(grid[0] * side / width, grid[1] * side / height)
        return round(scale**2 * width * height), -abs(grid[0] - grid[1])

    return max(grids(tiles), key=shown)


def cut(image: Image.Image, tiles: int, side: int) -> list[Image.Image]:
    """The tiles of a picture, `side` pixels each, row by row. It is resized to its grid, with white at its sides."""
    columns, rows = best_grid(*image.size, tiles, side)
    scale = min(columns * side / image.width, rows * side / image.height)
    size = [max(1, round(scale * length)) for length in image.size]
    canvas = Image.new("RGB", (columns * side, rows * side), WHITE)
    resized = image.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    canvas.paste(resized, ((canvas.width - size[0]) // 2, (canvas.height - size[1]) // 2))
    return [
        canvas.crop((x, y, x + side, y + side))
        for y in range(0, canvas.height, side)
        for x in range(0, canvas.width, side)
    ]


class Tiled(Encoder):
    """An encoder that is shown the whole picture and then its tiles: (1 + tiles) times as many features, tile by tile."""

    def __init__(self, encoder: Encoder, tiles: int) -> None:
        super().__init__()
        self.encoder, self.tiles = encoder, tiles
        self.feature_size, self.image_size = encoder.feature_size, encoder.image_size

    @property
    def feature_count(self) -> int:
        return (1 + self.tiles) * self.encoder.feature_count

    @property
    def classifier(self) -> nn.Linear:
        return self.encoder.classifier

    @property
    def classes(self) -> Sequence[str]:
        return self.encoder.classes

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB picture of any size -> [1 + tiles, 3, S, S]"""
        views = [image, *cut(image, self.tiles, self.image_size)]
        return torch.stack([self.encoder.preprocess(view) for view in views])

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 1 + tiles, 3, S, S] -> patch features [B, (1 + tiles) * N, Dv]"""
        features = self.encoder(pixels.flatten(0, 1))  # [B * (1 + tiles), N, Dv]
        return features.unflatten(0, (len(pixels), -1)).flatten(1, 2)
