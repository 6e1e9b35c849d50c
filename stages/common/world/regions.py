"""Regions of a scene: the image patches that an object or the background covers, and the phrases that describe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stages.common.world.scene import Scene
from stages.common.world.vocabulary import BACKGROUNDS, COLOUR_WORDS, KINDS, POSITION_WORDS

_MAX_COVERAGE = 0.05  # share of a patch of the background that objects may cover

Aspect = Literal["name", "colour", "position"]
Key = Any  # a kind or background, a colour, or a (row, column)
ASPECTS: tuple[Aspect, ...] = ("name", "colour", "position")


def box_weights(box: tuple[float, float, float, float], grid: int) -> np.ndarray:
    """The share of each patch, 0 to 1, that ``box`` (x0, y0, x1, y1 as fractions of the image side) covers.

    Returns float32 [grid * grid], row by row.
    """
    low = np.arange(grid) / grid
    across = np.clip(np.minimum(low + 1 / grid, box[2]) - np.maximum(low, box[0]), 0, None) * grid
    down = np.clip(np.minimum(low + 1 / grid, box[3]) - np.maximum(low, box[1]), 0, None) * grid
    return np.outer(down, across).ravel().astype(np.float32)


@dataclass(frozen=True)
class Region:
    """An object or the background: its phrases by aspect, and ``weights`` over the patches [P], sum 1."""

    phrases: dict[Aspect, Key]
    weights: np.ndarray


def regions_of(scene: Scene, grid: int) -> list[Region]:
    """One region for each object's box, and one for the patches that only show the background."""
    found: list[Region] = []
    covered = np.zeros(grid * grid, np.float32)
    for group in scene.groups:
        for box in group.boxes:
            weights = box_weights(box, grid)
            covered += weights
            cell = (group.row, min(2, int((box[0] + box[2]) * 1.5)))
            phrases = {"name": group.kind, "position": cell}
            if group.colour is not None:
                phrases["colour"] = group.colour
            found.append(Region(phrases, weights / weights.sum()))
    free = (covered < _MAX_COVERAGE).astype(np.float32)
    if free.sum() > 0:
        found.append(Region({"name": scene.background}, free / free.sum()))
    return found


def phrase_words(aspect: Aspect, key: Key) -> tuple[str, ...]:
    """All wordings of a phrase: 小狗 or 狗, 海边 or 沙滩上, 红色, 左侧 or 左边."""
    if aspect == "name":
        return BACKGROUNDS[key].words if key in BACKGROUNDS else KINDS[key].words
    return COLOUR_WORDS[key] if aspect == "colour" else POSITION_WORDS[key]
