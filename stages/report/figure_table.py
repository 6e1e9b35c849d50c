"""The table of all figures."""

from __future__ import annotations

from typing import NamedTuple

from stages.report.cards import series_cells, series_points
from stages.report.run.load_run import Run
from stages.report.run.metric_specs import BY_KEY, Metric, grouped
from stages.report.run.records import UNDEFINED, Interval

_SERIES = {
    "sentence": "By sentence of the long descriptions",
    "frequency": "By frequency",
    "background": "By background",
    "layer": "By layer of the decoder",
}
_NEW = "_new"  # of a figure of the first mentions in one sentence
_SERIES_KEYS = (
    "chair_i",
    *(f"{key}{_NEW}" for key in ("chair_i", "misnamed", "hallucinated")),
    "misnamed",
    "hallucinated",
    "recall",
    "recall_near",
    "recall_far",
    "probe_auc",
)


class TableRow(NamedTuple):
    """``cells``: one per checkpoint."""

    metric: Metric
    cells: list[Interval]


def figure_table(run: Run) -> list[tuple[str, list[TableRow]]]:
    """All figures by group, then the series; figures of a series that no checkpoint has are left out."""
    every = [checkpoint.evaluation.intervals for checkpoint in run.checkpoints.values()]
    table = [
        (title, [TableRow(metric, [intervals.get(key, UNDEFINED) for intervals in every]) for key, metric in rows])
        for title, rows in grouped({key for intervals in every for key in intervals})
    ]
    for series, title in _SERIES.items():
        rows = [
            TableRow(_metric_at(series, point, key), series_cells(run, series, point, key))
            for key in _SERIES_KEYS
            for point in series_points(run, series)
        ]
        table.append((title, [row for row in rows if any(cell.value is not None for cell in row.cells)]))
    return [(title, rows) for title, rows in table if rows]


def _metric_at(series: str, point: str, key: str) -> Metric:
    metric = BY_KEY[key.removesuffix(_NEW)]
    sentence = f"first mentions in sentence {point}" if key.endswith(_NEW) else f"up to sentence {point}"
    where = {"sentence": sentence, "layer": f"layer {point}"}.get(series, point)
    return metric._replace(title=f"{metric.title}, {where}", reading="")
