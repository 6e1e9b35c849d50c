"""Charts: smoothing keeps the jump between epochs, lanes do not overlap, marks are at their positions on the scale."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stages.report.charts.dot_chart import dot_chart, nice_ticks
from stages.report.charts.line_chart import line_chart
from stages.report.charts.loss_chart import assign_lanes, loss_chart, smoothed
from stages.report.charts.palette import palette
from stages.report.run.load_run import load_run
from stages.report.run.loss_diagnostics import LossRow
from stages.report.run.metric_specs import BY_KEY
from stages.report.run.records import UNDEFINED, Interval

ROOT = Path(__file__).resolve().parents[2]


def test_smoothing_never_crosses_the_end_of_an_epoch():
    rows = [LossRow(i, i / 10, i, 1.0 if i <= 10 else 3.0) for i in range(1, 21)]
    assert smoothed(rows) == [1.0] * 10 + [3.0] * 10


def test_smoothing_is_a_mean_of_neighbours():
    rows = [LossRow(i, i / 100, i, float(i)) for i in range(1, 6)]
    assert smoothed(rows) == [1.5, 2.0, 3.0, 4.0, 4.5]


def test_overlapping_runs_are_in_different_lanes():
    spans = {"pretrain": (0, 10), "short": (10, 20), "long": (20, 40), "direct": (10, 40), "other": (10, 15)}
    assert assign_lanes(spans) == {"pretrain": 0, "short": 0, "long": 0, "direct": 1, "other": 2}


def test_all_checkpoints_have_different_colours(inputs):
    colours = palette(inputs.params, inputs.params.checkpoints)
    assert list(colours) == ["pretrain", "sft-short", "sft-long", "sft-direct"]
    assert len({colour.light for colour in colours.values()}) == len({colour.dark for colour in colours.values()}) == 4


def test_a_phase_outside_curriculum_and_control_has_another_colour(inputs):
    inputs.raw["sft"]["phases"]["unshuffled"] = inputs.raw["sft"]["phases"]["short"] | {"shuffle": False}
    colours = palette(inputs.params, [*inputs.params.checkpoints, "sft-long/epoch-1"])
    assert len({colours[name] for name in inputs.params.checkpoints}) == 5
    assert colours["sft-long/epoch-1"] == colours["sft-long"]


def test_charts_use_the_colours_of_the_page(inputs):
    run = load_run(inputs.params, inputs.root)
    loss = loss_chart(run, 700, 300)
    for index in range(4):
        assert f"var(--c{index})" in loss
        assert f"lane{index}_marks" in loss  # the class by which the page hides the label
    assert loss.count("stroke-dasharray") >= 4  # an epoch boundary in each training run
    assert "sft-direct" in loss


def test_a_line_chart_has_a_line_and_a_band_for_each_checkpoint_with_the_series(inputs):
    def point(at: str, value: float | None) -> dict:
        return {
            "at": at,
            "texts": 9,
            "intervals": {"chair_i": {"value": value, "low": value and 0.1, "high": value and 0.3}},
        }

    series = {"sentence": [point("1", 0.15), point("2", 0.2), point("3", None)]}
    inputs.write_metrics("sft-long", {"chair_i": (0.2, 0.02)}, series)
    run = load_run(inputs.params, inputs.root)
    svg = line_chart(run, "sentence", "chair_i", 100, "sentence")
    assert 'stroke="var(--c2)"' in svg and 'fill="var(--c2)"' in svg
    assert "var(--c0)" not in svg
    assert line_chart(run, "sentence", "recall", 100, "sentence") == ""


def test_a_line_chart_with_levels_and_a_band_for_some_checkpoints(inputs):
    ends = {"value": 0.2, "low": 0.1, "high": 0.3}
    series = {"sentence": [{"at": str(k), "texts": 9, "intervals": {"chair_i_new": ends}} for k in (1, 2, 3, 4)]}
    for name in ("pretrain", "sft-long"):
        inputs.write_metrics(name, {"chair_i": (0.2, 0.02)}, series)
    run = load_run(inputs.params, inputs.root)
    plain = line_chart(run, "sentence", "chair_i_new", 100, "sentence", banded=["sft-long"])
    assert 'opacity="0.13" fill="var(--c2)"' in plain or 'fill="var(--c2)" opacity="0.13"' in plain
    assert 'opacity="0.13" fill="var(--c0)"' not in plain and 'fill="var(--c0)" opacity="0.13"' not in plain
    assert "stroke-dasharray" not in plain
    levels = line_chart(run, "sentence", "chair_i_new", 100, "sentence", steps=[(1, 0.05), (3, 0.15)])
    assert len(re.findall(r'd="M[^"]*"[^>]*stroke-dasharray', levels)) == 1
    assert line_chart(run, "sentence", "chair_i_new", 100, "sentence", steps=[(1, 0.05), (9, 0.15)])


def test_validation_losses_are_points_of_the_loss_chart(inputs):
    before = loss_chart(load_run(inputs.params, inputs.root), 700, 300)
    inputs.add_validation_loss("sft-long", {0: 2.5, 2001: 1.5, 4002: 1.2})
    after = loss_chart(load_run(inputs.params, inputs.root), 700, 300)
    drawn = [len(re.findall(r'stroke="var\(--c2\)"[^>]*', chart)) for chart in (before, after)]
    assert drawn[1] - drawn[0] == 3


def interval(value: float, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(value=value, low=low, high=high)


def test_marks_are_at_their_positions_on_the_scale():
    figures = {
        "one": [interval(0.1, 0.05, 0.15), interval(0.2, 0.2, 0.25)],
        "two": [UNDEFINED, interval(0.1)],
    }
    drawn = dot_chart(figures, BY_KEY["chair_i"], ("full", "hollow"), guides=[0.15])
    assert drawn.ticks == ((0, "5"), (25, "10"), (50, "15"), (75, "20"), (100, "25"))
    one, two = drawn.rows
    assert [(mark.at, mark.span, mark.shape) for mark in one.marks] == [
        (25, (0, 50), "full"),
        (75, (75, 25), "hollow"),
    ]
    assert (one.text, one.marks[0].text) == ("10.0", "10.0 [5.0, 15.0]")
    assert two.text == "–" and [(mark.at, mark.span) for mark in two.marks] == [(25, None)]
    assert drawn.guides == (50,)
    assert dot_chart({"one": [UNDEFINED]}, BY_KEY["chair_i"]) is None


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([5.2, 14.5], [5, 7.5, 10, 12.5, 15]),
        ([-3, 2.2], [-4, -2, 0, 2, 4]),
        ([0, 100], [0, 25, 50, 75, 100]),
        ([100], [90, 92.5, 95, 97.5, 100]),
        ([0], [0, 0.1]),
    ],
)
def test_ticks_are_round_and_span_all_values(values, ticks):
    assert nice_ticks(values, 5) == pytest.approx(ticks)


def test_there_are_fewer_ticks_if_their_labels_are_long():
    drawn = dot_chart({"one": [interval(0.9911, 0.9873, 0.9945)]}, BY_KEY["probe_auc"]._replace(decimals=4))
    assert len(drawn.ticks) == 3


@pytest.mark.parametrize(("name", "x", "y"), [("loss", "timeline", "loss"), ("bars", "checkpoint", "value")])
def test_templates_of_dvc_plots_can_be_filled_and_drawn(name, x, y):
    dvc_render = pytest.importorskip("dvc_render", reason="DVC is not installed here")
    import vl_convert

    rows = [
        {"phase": "pretrain", "checkpoint": "pretrain", "metric": "recall", "step": str(i), "epoch": str(i), "rev": rev}
        | {x: str(i) if name == "loss" else "pretrain", y: f"0.{i}", "low": "0.1", "high": "0.9"}
        for rev in ("HEAD", "workspace")
        for i in (1, 2, 3)
    ]
    template = ROOT / ".dvc/plots" / f"{name}.json"
    spec = dvc_render.VegaRenderer(rows, "plot", template=str(template), x=x, y=y, title="Title").get_filled_template()
    assert "<DVC_METRIC" not in json.dumps(spec)
    svg = vl_convert.vegalite_to_svg(spec)
    assert "Title" in svg and "pretrain" in svg and "workspace" in svg


def test_the_page_of_dvc_plots_includes_vega():
    from stages.report.plots_template import template

    html = template()
    assert "{plot_divs}" in html and "{scripts}" not in html
    assert html.count("</script") == 1 and "<script src" not in html
    assert "vegaEmbed" in html
