"""Figures with intervals: read off a run, put in words, and compared by rules that are the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from stages.report.load_run import UNDEFINED, Checkpoint, Interval, Run
from stages.report.metric_specs import Metric

Relation = Literal["lower", "higher", "unclear", "undefined"]


def figure(checkpoint: Checkpoint, key: str) -> Interval:
    return checkpoint.evaluation.intervals.get(key, UNDEFINED)


def measured(run: Run, key: str) -> bool:
    """Whether any checkpoint has this figure."""
    return any(figure(checkpoint, key).value is not None for checkpoint in run.checkpoints.values())


def relation(change: Interval) -> Relation:
    """What the interval of a difference says of it; one that holds or touches zero decides nothing."""
    if not change.defined:
        return "undefined"
    return "lower" if change.high < 0 else "higher" if change.low > 0 else "unclear"


def shown(metric: Metric, interval: Interval) -> str:
    return _with_ends(metric.show, interval)


def shown_change(metric: Metric, interval: Interval) -> str:
    return _with_ends(metric.change, interval)


def _with_ends(write: Callable[[float | None], str], interval: Interval) -> str:
    value = write(interval.value)
    return f"{value} [{write(interval.low)}, {write(interval.high)}]" if interval.defined else value
