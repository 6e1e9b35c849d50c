"""How long each stage took: files of reports/time, and bars one after another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stages.common.config.params import Params
from stages.common.core.timing import time_file
from stages.report.run.input_files import read_json
from stages.report.run.records import StageTime


class Bar(NamedTuple):
    """``start`` and ``width`` in percent of the total time."""

    stage: str
    start: float
    width: float
    duration: str
    memory: str


class Timeline(NamedTuple):
    """``ticks``: (position in percent, label)."""

    total: str
    bars: list[Bar]
    ticks: list[tuple[float, str]]


def stages_in_order(params: Params) -> list[str]:
    """All stages that record their time, as they run one after another; the report itself records none."""
    first = ("fetch", "prepare", "tokenizer", "vision", "language", "encode", "pretrain", "curriculum")
    phases = [f"sft-{phase}" for phase in params.sft.phases]
    models = [f"convert-{name}" for name in params.fetch.models]
    evaluation = [f"{step}-{name}" for step in ("answer", "score") for name in params.checkpoints]
    return [*first, *phases, *models, *evaluation]


def load_times(params: Params, root: Path = Path()) -> dict[str, StageTime]:
    """Of the stages that have recorded theirs. Raises InputError that names an invalid file."""
    files = {stage: time_file(stage, root) for stage in stages_in_order(params)}
    return {stage: read_json(file, StageTime) for stage, file in files.items() if file.exists()}


def timeline(times: Mapping[str, StageTime]) -> Timeline | None:
    """None if no time was recorded."""
    total = sum(stage.seconds for stage in times.values())
    if not total:
        return None
    bars, done = [], 0.0
    for stage, time in times.items():
        memory = f"{time.peak_memory / 2**20:,.0f} MiB"
        bars.append(Bar(stage, 100 * done / total, 100 * time.seconds / total, duration(time.seconds), memory))
        done += time.seconds
    return Timeline(duration(total), bars, _ticks(total))


def duration(seconds: float) -> str:
    """7.4 s, 2 min 05 s, 3 h 20 min"""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02} min"


def _ticks(total: float) -> list[tuple[float, str]]:
    """(percent, label), at most nine."""
    step = next((step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800) if total / step <= 8), 0)
    step = step or 3600 * -(-total // (8 * 3600))
    unit, size = ("s", 1) if step < 60 else ("min", 60) if step < 3600 else ("h", 3600)
    numbers = range(int(total // step) + 1)
    return [
        (100 * number * step / total, f"{number * step / size:g}" + (f" {unit}" if not number else ""))
        for number in numbers
    ]
