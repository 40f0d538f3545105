"""Features as the cells of a square grid, row by row."""

import math

from torch import Tensor
from torch.nn import functional

from vlm.errors import UserError


def grid_side(feature_count: int) -> int:
    """Cells a side. Raises UserError where the features are no square grid."""
    side = math.isqrt(feature_count)
    if side**2 != feature_count:
        raise UserError(
            f"The connector pooled-grid needs a square grid, and the encoder's {feature_count} features are none. "
            "Choose a connector that takes any number of features, such as mlp, q-former or resampler."
        )
    return side


def merged_count(feature_count: int, merge: int) -> int:
    """How many tokens `merge_cells` makes."""
    side = math.isqrt(feature_count)
    if merge < 1 or (merge > 1 and (side**2 != feature_count or side % merge)):
        raise UserError(
            f"connector.merge is {merge}, and the encoder's {feature_count} features are no square grid whose "
            f"sides it divides. Choose another vision.image_size, or merge: 1."
        )
    return feature_count // merge**2


def merge_cells(cells: Tensor, merge: int) -> Tensor:
    """Put `merge` x `merge` neighbours' channels side by side. [B, N, D] -> [B, N / merge^2, D * merge^2]"""
    if merge == 1:
        return cells
    side = math.isqrt(cells.shape[1])
    grid = cells.unflatten(1, (side // merge, merge, side // merge, merge))  # [B, rows, y, columns, x, D]
    return grid.transpose(2, 3).flatten(3).flatten(1, 2)


def pool_cells(cells: Tensor, side: int) -> Tensor:
    """Average the grid down to `side` x `side` cells. [B, N, D] -> [B, side^2, D]"""
    grid = cells.transpose(1, 2).unflatten(2, (math.isqrt(cells.shape[1]), -1))  # [B, D, rows, columns]
    return functional.adaptive_avg_pool2d(grid, side).flatten(2).transpose(1, 2)
