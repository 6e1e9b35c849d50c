"""The results of scoring a checkpoint, and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.core.errors import InputError
from stages.common.core.files import write_json, write_text
from stages.evaluate.files import Answer
from stages.evaluate.score.bootstrap import Estimate
from stages.evaluate.score.breakdowns import Point

RESAMPLES = "resamples.parquet"  # a column per metric, a row per resample: the same scenes for every checkpoint

Row = dict[str, Any]


class Results(NamedTuple):
    """``scenes``: how many of ``split`` were scored. ``series``: metrics along something, such as a text's sentences.
    ``rows``: one per answer. ``shown``: (name, description) of the fixed pictures."""

    split: str
    scenes: int
    estimates: dict[str, Estimate]
    series: dict[str, list[Point]]
    rows: list[Row]
    shown: list[tuple[str, str]]


def answer_row(answer: Answer) -> Row:
    """A row of answers.jsonl, without mentions."""
    shared = ("id", "split", "task", "prompt", "answer", "reference")
    return {name: getattr(answer, name) for name in shared} | {"mentions": [], "missed": []}


def select(answers: Iterable[Answer], split: str, task: str) -> list[Answer]:
    return [answer for answer in answers if (answer.split, answer.task) == (split, task)]


def unknown_row(folder: Path, name: str) -> InputError:
    """The error for a row of ``folder`` that the prepared data do not hold."""
    return InputError(
        f"{folder}: row {name} is not in data/prepared, so the answers are older than the data; run `dvc repro`"
    )


def metrics_of(model: Mapping[str, Any], results: Results) -> Row:
    """The content of metrics.json. ``model``: checkpoint, parameters, parameters_vision."""
    return {
        **model,
        "split": results.split,
        "scenes": results.scenes,
        "intervals": {metric: estimate.row() for metric, estimate in results.estimates.items()},
        "series": {along: [point.row() for point in points] for along, points in results.series.items()},
    }


def write_results(folder: Path, model: Mapping[str, Any], provenance: Mapping[str, Any], results: Results) -> None:
    """Write metrics.json, resamples.parquet, answers.jsonl, samples.txt and provenance.json into ``folder``."""
    write_json(folder / "metrics.json", metrics_of(model, results))
    in_series = {
        f"{along}/{point.at}/{metric}": estimate
        for along, points in results.series.items()
        for point in points
        for metric, estimate in point.estimates.items()
    }
    columns = {name: estimate.resampled for name, estimate in (results.estimates | in_series).items()}
    pq.write_table(
        pa.table({name: column.astype(np.float32) for name, column in columns.items() if len(column)}),
        folder / RESAMPLES,
    )
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in results.rows)
    write_text(folder / "answers.jsonl", "".join(lines))
    write_text(folder / "samples.txt", samples_text(model["parameters"], results.shown))
    write_json(folder / "provenance.json", provenance)


def samples_text(parameters: int, answers: Sequence[tuple[str, str]]) -> str:
    """The form of the notes: the parameter count, then `[Image]: name` and the answer for each (name, answer)."""
    blocks = [f"模型参数量：{parameters / 1e6:.3f} 百万"]
    blocks += [f"[Image]: {name}\n{answer}" for name, answer in answers]
    return "\n\n".join(blocks) + "\n"
