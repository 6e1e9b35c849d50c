"""W&B runs of evaluations: metrics as summary, and a table of pictures with the answers about them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from stages.common.config.params import Params
from stages.common.tracking.names import evaluation_name
from stages.common.tracking.runs import start_run

_COLUMNS = ("checkpoint", "picture", "image", "task", "prompt", "answer", "reference", "wrong mentions", "missed")


def log_evaluation(
    name: str,
    params: Params,
    facts: Mapping[str, Any],
    intervals: Mapping[str, Mapping[str, float | None]],
    rows: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, bytes],
) -> None:
    """A run for the checkpoint ``name``, with its metrics as summary and ``rows``, answers about ``pictures``, as a
    table. ``pictures``: encoded images by the rows' id."""
    with start_run(evaluation_name(name), "evaluate", params, {"checkpoint": name, **facts}) as run:
        if rows:
            run.log_table("eval/answers", lambda: _table(name, rows, pictures))
        run.summarise(summary_of(intervals))


def summary_of(intervals: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """eval/METRIC and the ends of its interval; without those that are not defined."""
    return {
        f"eval/{metric}" if part == "value" else f"eval/{metric}_{part}": value
        for metric, interval in intervals.items()
        for part, value in interval.items()
        if value is not None
    }


def table_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The table's columns for each answer, except the picture."""
    for row in rows:
        wrong = [mention["word"] for mention in row["mentions"] if mention["supported"] is False]
        texts = {key: row[key] for key in ("task", "prompt", "answer", "reference")}
        found = {"wrong mentions": ", ".join(wrong), "missed": ", ".join(row["missed"])}
        yield {"checkpoint": name, "picture": row["id"], **texts, **found}


def _table(name: str, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, bytes]) -> Any:
    import wandb

    table = wandb.Table(columns=list(_COLUMNS))
    for row in table_rows(name, rows):
        image = wandb.Image(Image.open(io.BytesIO(pictures[row["picture"]])))
        table.add_data(*(image if column == "image" else row[column] for column in _COLUMNS))
    return table
