"""The page of times: the stages of this run, in order, with their durations."""

from __future__ import annotations

import json

import pytest

from stages.report.page import render_page
from stages.report.run.load_run import load_run
from stages.report.run.records import StageTime
from stages.report.timeline import duration, load_times, timeline
from stages.report.times_page import render_times_page
from tests.report.conftest import Inputs


def stage_time(seconds: float) -> StageTime:
    return StageTime(started="2026-01-01T00:00:00+00:00", seconds=seconds, peak_memory=300 * 2**20)


def test_bars_follow_one_another() -> None:
    drawn = timeline({"prepare": stage_time(30), "vision": stage_time(90), "sft-long": stage_time(60)})
    assert drawn.total == "3 min 00 s"
    assert [(bar.stage, round(bar.start, 1), round(bar.width, 1)) for bar in drawn.bars] == [
        ("prepare", 0, 16.7),
        ("vision", 16.7, 50),
        ("sft-long", 66.7, 33.3),
    ]
    assert drawn.bars[0].duration == "30.0 s" and drawn.bars[0].memory == "300 MiB"
    assert drawn.ticks == [(0, "0 s"), *[(pytest.approx(100 * n * 30 / 180), f"{30 * n}") for n in range(1, 7)]]
    assert timeline({}) is None


@pytest.mark.parametrize("total", [0.5, 7, 61, 800, 5000, 90_000, 900_000])
def test_ticks_are_few_and_within(total: float) -> None:
    ticks = timeline({"vision": stage_time(total)}).ticks
    assert 1 <= len(ticks) <= 9
    assert all(0 <= position <= 100 for position, _ in ticks)


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.42, "7.4 s"), (59.96, "1 min 00 s"), (125, "2 min 05 s"), (12_000, "3 h 20 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_page_of_times_has_the_stages_of_this_run_only(inputs: Inputs) -> None:
    for stage in ("score-sft-long", "answer-sft-long", "vision", "sft-removed", "sft-long"):
        inputs.write(f"reports/time/{stage}.json", json.dumps(stage_time(60).model_dump()))
    times = load_times(inputs.params, inputs.root)
    assert list(times) == ["vision", "sft-long", "answer-sft-long", "score-sft-long"]
    page = render_times_page(times)
    assert "4 min 00 s in total" in page and "answer-sft-long" in page and "sft-removed" not in page
    index = render_page(load_run(inputs.params, inputs.root))
    assert "4 min 00 s" not in index and "300 MiB" not in index


def test_without_times_the_page_says_so(inputs: Inputs) -> None:
    assert "No stage has recorded its time." in render_times_page(load_times(inputs.params, inputs.root))
