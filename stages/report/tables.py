"""Tables for `dvc metrics` and `dvc plots`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from stages.report.run.load_run import Run
from stages.report.run.records import Interval
from stages.report.run.token_axis import timeline_starts

LOSS_COLUMNS = ("phase", "step", "timeline", "epoch", "loss", "validation_loss")
METRIC_COLUMNS = ("checkpoint", "metric", "value", "low", "high")
_DECIMALS = 4  # of figures in tables: finer than any interval
# The columns of `dvc metrics`: {column: figure}. With the name of the file they fill a line of 80 characters, so that
# columns and numbers are short. The page has every figure with its interval; `dvc plots` has every figure, too.
_LISTED = {
    "chair_i": "chair_i",
    "rise": "chair_i_rise",
    "wrong": "unsupported",
    "near": "recall_near",
    "far": "recall_far",
    "length": "length",
}
_LISTED_OF_FILES = {
    "loss": "loss",
    "chair_i": "photograph_chair_i",
    "swap": "swap_gap_object",
    "length": "length",
    "jump": "jump",
}
_LISTED_DECIMALS, _LISTED_DECIMALS_FROM_10 = 3, 1


def loss_table(run: Run) -> list[dict[str, Any]]:
    """All loss logs over target tokens since the start of pretraining; a row per logged step, then
    a row per validation loss; each has one of the two losses."""
    starts = timeline_starts(run)
    return [
        {
            "phase": name,
            "step": row.step,
            "timeline": starts[name] + row.target_tokens,
            "epoch": row.epoch,
            column: row.loss,
        }
        for name, checkpoint in run.checkpoints.items()
        for column, rows in (("loss", checkpoint.loss), ("validation_loss", checkpoint.validation_loss))
        for row in rows
    ]


def _figures(run: Run) -> dict[str, dict[str, Interval]]:
    """{checkpoint: {figure: interval}}, with ``jump``: the change of the loss at the end of an epoch, in nats.

    The jump is the mean over all ends of epochs but the last, and has no interval.
    """
    figures = {name: dict(checkpoint.evaluation.intervals) for name, checkpoint in run.checkpoints.items()}
    for name, diagnostics in run.diagnostics.items():
        if diagnostics.jumps:
            mean = sum(jump.size for jump in diagnostics.jumps) / len(diagnostics.jumps)
            figures[name]["jump"] = Interval(value=mean, low=None, high=None)
    return figures


def metric_values(run: Run) -> dict[str, dict[str, float | None]]:
    """{checkpoint: {column: value}} for `dvc metrics`; None where a figure is undefined.

    ``rise``: CHAIR-i of the rest of a text minus that of its first two sentences; ``wrong``: kinds a text that are not
    in the picture; ``near``, ``far``: recall; ``swap``: image-swap gap of object words.
    """
    listed = _LISTED if run.params.data.source == "world" else _LISTED_OF_FILES
    return {
        name: {column: _short(figures[key].value) for column, key in listed.items() if key in figures}
        for name, figures in _figures(run).items()
    }


def _short(value: float | None) -> float | None:
    if value is None:
        return None
    return round(value, _LISTED_DECIMALS if abs(value) < 10 else _LISTED_DECIMALS_FROM_10)


def metric_table(run: Run) -> list[dict[str, Any]]:
    """Figures with intervals for `dvc plots`, a row per figure of a checkpoint; an undefined figure has no row."""
    return [
        {
            "checkpoint": name,
            "metric": metric,
            "value": _rounded(interval.value),
            "low": _rounded(interval.low),
            "high": _rounded(interval.high),
        }
        for name, figures in _figures(run).items()
        for metric, interval in figures.items()
        if interval.value is not None
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS)


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
