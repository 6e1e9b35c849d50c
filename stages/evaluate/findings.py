"""What an evaluation finds, whatever the pictures are."""

from __future__ import annotations

from typing import Any, NamedTuple

from stages.common.config.params import Params
from stages.common.data.features import Pictures, load_pictures
from stages.evaluate.score.bootstrap import Estimate
from stages.evaluate.score.breakdowns import Point


class Findings(NamedTuple):
    """``series``: figures along something, such as the sentences of a text. ``rows``: one per answer. ``shown``:
    (name, description) of the fixed pictures."""

    scenes: int
    estimates: dict[str, Estimate]
    series: dict[str, list[Point]]
    rows: list[dict[str, Any]]
    shown: list[tuple[str, str]]


def pictures_of(split: str, params: Params) -> Pictures:
    return load_pictures(split, params.encode.cache, params.data.image_size)
