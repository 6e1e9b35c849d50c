"""The time line: the stages of this run, in order, as long as they took."""

from __future__ import annotations

import json

import pytest

from stages.report.load_run import StageTime, load_run
from stages.report.page import render_page
from stages.report.timeline import duration, timeline
from tests.report.conftest import Inputs


def took(seconds: float) -> StageTime:
    return StageTime(started="2026-01-01T00:00:00+00:00", seconds=seconds, peak_memory=300 * 2**20)


def test_bars_stand_one_behind_another() -> None:
    drawn = timeline({"prepare": took(30), "vision": took(90), "sft-long": took(60)})
    assert drawn.total == "3 min 00 s"
    assert [(bar.stage, round(bar.start, 1), round(bar.width, 1)) for bar in drawn.bars] == [
        ("prepare", 0, 16.7),
        ("vision", 16.7, 50),
        ("sft-long", 66.7, 33.3),
    ]
    assert drawn.bars[0].took == "30.0 s" and drawn.bars[0].memory == "300 MiB"
    assert drawn.ticks == [(0, "0 s"), *[(pytest.approx(100 * n * 30 / 180), f"{30 * n}") for n in range(1, 7)]]
    assert timeline({}) is None


@pytest.mark.parametrize("total", [0.5, 7, 61, 800, 5000, 90_000, 900_000])
def test_ticks_are_few_and_within(total: float) -> None:
    ticks = timeline({"vision": took(total)}).ticks
    assert 1 <= len(ticks) <= 9
    assert all(0 <= place <= 100 for place, _ in ticks)


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.42, "7.4 s"), (59.96, "1 min 00 s"), (125, "2 min 05 s"), (12_000, "3 h 20 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_page_shows_stages_of_this_run_only(inputs: Inputs) -> None:
    assert 'id="time"' not in render_page(load_run(inputs.params, inputs.root))
    for stage in ("evaluate-sft-long", "vision", "sft-removed", "sft-long"):
        inputs.write(f"reports/time/{stage}.json", json.dumps(took(60).model_dump()))
    run = load_run(inputs.params, inputs.root)
    assert list(run.times) == ["vision", "sft-long", "evaluate-sft-long"]
    page = render_page(run)
    assert "What took how long: 3 min 00 s in all" in page and "sft-removed" not in page
