"""Figures with their intervals, a row per checkpoint; the page draws them with CSS, as wide as it has room."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stages.report.run.figures import format_interval
from stages.report.run.metric_specs import MINUS, Metric
from stages.report.run.records import Interval

_TICK_CHARACTERS = 11  # at most, of all labels of a scale together
_ROUNDING = 1e-9  # slack where a value is a multiple of the step


class Mark(NamedTuple):
    """``at``: position on the scale in percent; ``span``: left end and width of the interval, in percent."""

    at: float
    span: tuple[float, float] | None
    shape: str
    text: str


class DotRow(NamedTuple):
    """``text``: the first figure, a dash if it is undefined."""

    checkpoint: str
    marks: tuple[Mark, ...]
    text: str


class DotChart(NamedTuple):
    """``ticks``: position in percent and label, at equal distances from 0 to 100; ``guides``: positions of dashed
    lines."""

    rows: tuple[DotRow, ...]
    ticks: tuple[tuple[float, str], ...]
    guides: tuple[float, ...]


SHAPES = ("full", "hollow", "half")  # the first two differ most


def dot_chart(
    figures: Mapping[str, Sequence[Interval]],
    metric: Metric,
    shapes: Sequence[str] = SHAPES,
    guides: Sequence[float] = (),
) -> DotChart | None:
    """{checkpoint: figures} on one scale, which need not start at 0. None if all figures are undefined."""
    known = [interval for row in figures.values() for interval in row if interval.value is not None]
    if not known:
        return None
    ends = [end for interval in known for end in (interval.value, interval.low, interval.high) if end is not None]
    ticks = _readable_ticks([metric.scale * end for end in (*ends, *guides)])

    def position(value: float) -> float:
        return round(100 * (metric.scale * value - ticks[0]) / (ticks[-1] - ticks[0]), 1)

    def mark(interval: Interval, shape: str) -> Mark:
        span = (
            (position(interval.low), round(position(interval.high) - position(interval.low), 1))
            if interval.defined
            else None
        )
        return Mark(position(interval.value), span, shape, format_interval(metric, interval))

    rows = tuple(
        DotRow(
            name,
            tuple(mark(i, shape) for i, shape in zip(intervals, shapes, strict=False) if i.value is not None),
            metric.show(intervals[0].value),
        )
        for name, intervals in figures.items()
    )
    positions = [round(100 * number / (len(ticks) - 1), 1) for number in range(len(ticks))]
    return DotChart(
        rows, tuple(zip(positions, map(_tick_label, ticks), strict=True)), tuple(position(guide) for guide in guides)
    )


def _readable_ticks(values: Sequence[float]) -> list[float]:
    """As many as there is room for with their labels."""
    choices = [nice_ticks(values, most) for most in (5, 4, 3)]
    return next((ticks for ticks in choices if len("".join(map(_tick_label, ticks))) <= _TICK_CHARACTERS), choices[-1])


def _tick_label(tick: float) -> str:
    return f"{tick:.6g}".replace("-", MINUS)


def nice_ticks(values: Sequence[float], most: int) -> list[float]:
    """At most ``most`` round numbers at equal distances that span all values."""
    low, high = min(values), max(values)
    if low == high:
        low -= abs(low) / 10
    power = math.floor(math.log10(high - low or 1.0)) - 1
    steps = [step * 10.0**power for power in range(power, power + 4) for step in (1, 2, 2.5, 5)]

    def ends(step: float) -> tuple[int, int]:
        first = math.floor(low / step + _ROUNDING)
        return first, max(math.ceil(high / step - _ROUNDING), first + 1)

    step = next(step for step in steps if ends(step)[1] - ends(step)[0] < most)
    first, last = ends(step)
    return [number * step for number in range(first, last + 1)]
