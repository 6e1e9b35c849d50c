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


def difference(run: Run, one: str, other: str, metric: str) -> Interval:
    """A figure of one checkpoint minus that of another. Raises InputError if their resamples differ in number."""
    pair = [run.checkpoints[name] for name in (one, other)]
    values = [checkpoint.evaluation.intervals.get(metric, UNDEFINED).value for checkpoint in pair]
    columns = [checkpoint.resamples.get(metric) for checkpoint in pair]
    sizes = [len(column) for column in columns if column is not None]
    if len(set(sizes)) > 1:
        raise InputError(f"{one} and {other} have {sizes[0]} and {sizes[1]} resamples of {metric}: run `dvc repro`")
    return paired_difference(values, columns, run.params.evaluate.confidence)


def paired_difference(
    values: Sequence[float | None], columns: Sequence[np.ndarray | None], confidence: float
) -> Interval:
    """The first of two figures minus the second, by a paired bootstrap: row r of both columns draws the same scenes.

    Undefined if either figure is; without an interval if either has no resamples.
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
