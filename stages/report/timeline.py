"""How long each stage took, as bars one behind another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stages.report.load_run import StageTime


class Bar(NamedTuple):
    """``start`` and ``width`` in percent of the whole."""

    stage: str
    start: float
    width: float
    took: str
    memory: str


class Timeline(NamedTuple):
    total: str
    bars: list[Bar]
    ticks: list[tuple[float, str]]


def timeline(times: Mapping[str, StageTime]) -> Timeline | None:
    total = sum(stage.seconds for stage in times.values())
    if not total:
        return None
    bars, done = [], 0.0
    for stage, took in times.items():
        memory = f"{took.peak_memory / 2**20:,.0f} MiB"
        bars.append(Bar(stage, 100 * done / total, 100 * took.seconds / total, duration(took.seconds), memory))
        done += took.seconds
    return Timeline(duration(total), bars, _ticks(total))


def duration(seconds: float) -> str:
    """7.4 s, 2 min 05 s, 3 h 20 min"""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _ticks(total: float) -> list[tuple[float, str]]:
    """(percent, label), nine at most."""
    step = next((step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800) if total / step <= 8), 0)
    step = step or 3600 * -(-total // (8 * 3600))
    unit, size = ("s", 1) if step < 60 else ("min", 60) if step < 3600 else ("h", 3600)
    places = range(int(total // step) + 1)
    return [
        (100 * place * step / total, f"{place * step / size:g}" + (f" {unit}" if not place else "")) for place in places
    ]
