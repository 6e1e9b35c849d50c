"""Colours and outlines that the backgrounds are drawn with."""

from __future__ import annotations

import math
from collections.abc import Iterable

Colour = tuple[int, int, int]
Point = tuple[float, float]

WHITE = (252, 252, 252)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour between ``a`` and ``b``; ``share`` 0 is ``a``, 1 is ``b``."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


def ellipse(
    x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360, steps: int = 40, turn: float = 0
) -> list[Point]:
    """Points on an ellipse from angle ``start`` to ``stop``, rotated by ``turn``; degrees clockwise from the right."""
    angles = (math.radians(start + (stop - start) * step / steps) for step in range(steps + 1))
    points = [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]
    return rotate(points, x, y, turn) if turn else points


def rotate(points: Iterable[Point], x: float, y: float, turn: float) -> list[Point]:
    """``points`` rotated around (x, y) by ``turn`` degrees, clockwise."""
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return [(x + (u - x) * cos - (v - y) * sin, y + (u - x) * sin + (v - y) * cos) for u, v in points]
