"""Figures with intervals: looked up, written and compared by the same rules on the whole page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from stages.common.core.errors import InputError
from stages.report.run.load_run import Checkpoint, Run
from stages.report.run.metric_specs import Metric
from stages.report.run.records import UNDEFINED, Interval

Relation = Literal["lower", "higher", "unclear", "undefined"]


def figure(checkpoint: Checkpoint, key: str) -> Interval:
    return checkpoint.evaluation.intervals.get(key, UNDEFINED)


def measured(run: Run, key: str) -> bool:
    """Whether any checkpoint has this figure."""
    return any(figure(checkpoint, key).value is not None for checkpoint in run.checkpoints.values())


def relation(change: Interval) -> Relation:
    """Direction of a difference; unclear where its interval contains or touches zero."""
    if not change.defined:
        return "undefined"
    return "lower" if change.high < 0 else "higher" if change.low > 0 else "unclear"


Side = tuple[str, str] | float  # (checkpoint, metric), or a number to compare with


def side_figure(run: Run, side: Side) -> Interval:
    if isinstance(side, float):
        return Interval(value=side, low=None, high=None)
    return figure(run.checkpoints[side[0]], side[1])


def difference(run: Run, one: str, other: str, metric: str) -> Interval:
    """A figure of one checkpoint minus that of another. Raises InputError if their resamples differ in number."""
    return side_difference(run, (one, metric), (other, metric))


def side_difference(run: Run, one: Side, other: Side) -> Interval:
    """The first side minus the second. Raises InputError if their resamples differ in number."""
    sides = (one, other)
    columns = [
        np.asarray(side) if isinstance(side, float) else run.checkpoints[side[0]].resamples.get(side[1])
        for side in sides
    ]
    sizes = [len(column) for column in columns if column is not None and column.ndim]
    if len(set(sizes)) > 1:
        raise InputError(
            f"{one[0]} and {other[0]} have {sizes[0]} and {sizes[1]} resamples of {one[1]}: run `dvc repro`"
        )
    values = [side_figure(run, side).value for side in sides]
    return paired_difference(values, columns, run.params.evaluate.confidence)


def paired_difference(
    values: Sequence[float | None], columns: Sequence[np.ndarray | None], confidence: float
) -> Interval:
    """The first of two figures minus the second, by a paired bootstrap: row r of both columns draws the same scenes.

    Undefined if either figure is; without an interval if either has no resamples. A number has a column without
    dimensions.
    """
    if None in values:
        return UNDEFINED
    value = values[0] - values[1]
    if any(column is None for column in columns):
        return Interval(value=value, low=None, high=None)
    differences = columns[0] - columns[1]
    known = differences[np.isfinite(differences)]
    low, high = np.percentile(known, [50 * (1 - confidence), 50 * (1 + confidence)]) if len(known) else (None, None)
    return Interval(value=value, low=low, high=high)


def format_interval(metric: Metric, interval: Interval) -> str:
    """8.1 [7.0, 9.2]"""
    return _format(metric.show, interval)


def format_change(metric: Metric, interval: Interval) -> str:
    """+0.5 [−0.1, +1.1]"""
    return _format(metric.change, interval)


def _format(write: Callable[[float | None], str], interval: Interval) -> str:
    value = write(interval.value)
    return f"{value} [{write(interval.low)}, {write(interval.high)}]" if interval.defined else value
