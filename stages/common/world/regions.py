"""Where an object lies on the grid of patches."""

from __future__ import annotations

import numpy as np


def box_weights(box: tuple[float, float, float, float], grid: int) -> np.ndarray:
    """How much of each patch [grid * grid] a box covers, 0 to 1."""
    low = np.arange(grid) / grid
    across = np.clip(np.minimum(low + 1 / grid, box[2]) - np.maximum(low, box[0]), 0, None) * grid
    down = np.clip(np.minimum(low + 1 / grid, box[3]) - np.maximum(low, box[1]), 0, None) * grid
    return np.outer(down, across).ravel().astype(np.float32)
