"""Charts: smoothing keeps the jump between epochs, lanes don't overlap, colours follow the tree of phases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.report.catalogue import BY_KEY
from stages.report.charts import loss_chart, metric_chart, palette, place_in_lanes, smoothed
from stages.report.merge import LossRow, load_run

ROOT = Path(__file__).resolve().parents[2]


def test_smoothing_never_crosses_the_end_of_an_epoch():
    rows = [LossRow(i, i / 10, i, 1.0 if i <= 10 else 3.0) for i in range(1, 21)]
    assert smoothed(rows) == [1.0] * 10 + [3.0] * 10


def test_smoothing_is_a_mean_of_neighbours():
    rows = [LossRow(i, i / 100, i, float(i)) for i in range(1, 6)]
    assert smoothed(rows) == [1.5, 2.0, 3.0, 4.0, 4.5]


def test_a_branch_gets_a_lane_of_its_own():
    spans = {"pretrain": (0, 10), "short": (10, 20), "long": (20, 40), "direct": (10, 40), "other": (10, 15)}
    assert place_in_lanes(spans) == {"pretrain": 0, "short": 0, "long": 0, "direct": 1, "other": 2}


def test_every_checkpoint_has_a_colour_of_its_own(inputs):
    colours = palette(inputs.params, inputs.params.checkpoints)
    assert list(colours) == ["pretrain", "sft-short", "sft-long", "sft-direct"]
    assert len({colour.light for colour in colours.values()}) == len({colour.dark for colour in colours.values()}) == 4


def test_charts_take_their_colours_from_the_page(inputs):
    run = load_run(inputs.params, inputs.root)
    loss, chair = loss_chart(run, 700, 300), metric_chart(run, BY_KEY["chair_i"])
    for index in range(4):
        assert f"var(--c{index})" in loss and f"var(--c{index})" in chair
    assert loss.count("stroke-dasharray") >= 4  # an epoch boundary in each training run
    assert "sft-direct" in loss and "sft-direct" in chair
    assert metric_chart(run, BY_KEY["repetition"]) == ""  # nothing measured


@pytest.mark.parametrize(("name", "x", "y"), [("loss", "timeline", "loss"), ("bars", "checkpoint", "value")])
def test_templates_of_dvc_plots_are_filled_and_drawn(name, x, y):
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


def test_the_page_of_dvc_plots_carries_vega_itself():
    from stages.report.plots_template import template

    html = template()
    assert "{plot_divs}" in html and "{scripts}" not in html
    assert html.count("</script") == 1 and "<script src" not in html
    assert "vegaEmbed" in html
