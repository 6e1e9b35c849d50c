"""Which image patches an object covers."""

from __future__ import annotations

import numpy as np


def box_weights(box: tuple[float, float, float, float], grid: int) -> np.ndarray:
    """The share of each patch, 0 to 1, that ``box`` (x0, y0, x1, y1 as fractions of the image side) covers.

    Returns float32 [grid * grid], row by row.
    """
    low = np.arange(grid) / grid
    across = np.clip(np.minimum(low + 1 / grid, box[2]) - np.maximum(low, box[0]), 0, None) * grid
    down = np.clip(np.minimum(low + 1 / grid, box[3]) - np.maximum(low, box[1]), 0, None) * grid
    return np.outer(down, across).ravel().astype(np.float32)
