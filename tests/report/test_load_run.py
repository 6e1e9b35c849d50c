"""Files of the other stages become one run with the checkpoints of params.yaml; errors name the file."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from stages.common.core.errors import InputError
from stages.report.page import render_page
from stages.report.run.figures import difference
from stages.report.run.load_run import load_run
from stages.report.run.loss_diagnostics import LossRow
from stages.report.run.token_axis import epoch_boundaries, timeline_starts
from stages.report.tables import LOSS_COLUMNS, csv_text, loss_table, metric_table, metric_values


def test_checkpoints_come_in_the_order_of_the_phases(inputs):
    assert list(load_run(inputs.params, inputs.root).checkpoints) == ["pretrain", "sft-short", "sft-long", "sft-direct"]


def test_files_of_a_removed_phase_are_ignored(inputs):
    inputs.write("reports/loss/sft-gone.csv", "not,a,loss\n")
    inputs.write("reports/evaluation/sft-gone/metrics.json", "{")
    del inputs.raw["sft"]["phases"]["direct"]  # its files remain
    run = load_run(inputs.params, inputs.root)
    assert list(metric_values(run)) == ["pretrain", "sft-short", "sft-long"]
    assert {row["phase"] for row in loss_table(run)} == {"pretrain", "sft-short", "sft-long"}
    assert {row["checkpoint"] for row in metric_table(run)} == {"pretrain", "sft-short", "sft-long"}


def test_a_phase_starts_where_the_checkpoint_that_it_continues_ended(inputs):
    run = load_run(inputs.params, inputs.root)
    assert timeline_starts(run) == {"pretrain": 0, "sft-short": 1000, "sft-long": 1000 + 2006, "sft-direct": 1000}


def test_starts_do_not_depend_on_the_order_in_which_phases_are_written(inputs):
    phases = inputs.raw["sft"]["phases"]
    inputs.raw["sft"]["phases"] = {name: phases[name] for name in ("direct", "long", "short")}
    starts = timeline_starts(load_run(inputs.params, inputs.root))
    assert (starts["sft-short"], starts["sft-long"], starts["sft-direct"]) == (1000, 3006, 1000)


def test_the_merged_loss_counts_tokens_from_the_start_of_pretraining(inputs):
    rows = loss_table(load_run(inputs.params, inputs.root))
    text = csv_text(LOSS_COLUMNS, rows).splitlines()
    assert text[0] == "phase,step,timeline,epoch,loss,validation_loss"
    assert text[1] == "pretrain,1,250,0.5,3.0,"
    assert "sft-direct,4,7008,2.0,0.75," in text  # 1000 of pretraining, then 2 x 3004
    for phase in ("pretrain", "sft-long"):
        line = [row["timeline"] for row in rows if row["phase"] == phase]
        assert line == sorted(line)


def test_epochs_end_between_two_logged_steps():
    rows = [LossRow(1, 0.8, 80, 1.0), LossRow(2, 1.3, 130, 1.0), LossRow(3, 2.0, 230, 1.0)]
    assert epoch_boundaries(rows) == [pytest.approx(100)]
    assert epoch_boundaries([LossRow(1, 2.0, 200, 1.0)]) == [pytest.approx(100)]
    assert epoch_boundaries([LossRow(1, 0.5, 50, 1.0), LossRow(2, 1.0, 100, 1.0)]) == []
    assert epoch_boundaries([]) == []


def test_few_figures_are_listed_and_undefined_ones_are_none(inputs):
    inputs.write_metrics("pretrain", {"chair_i": (None, 0.0), "recall_far": (0.123456, 0.1), "caption_f1": (None, 0.0)})
    figures = {"chair_i": (0.07226, 0.02), "recall_near": (0.81234, 0.1), "length": (128.42667, 2.0)}
    inputs.write_metrics("sft-long", figures | {"probe_auc": (0.9, 0.01)})
    run = load_run(inputs.params, inputs.root)
    assert metric_values(run)["pretrain"] == {"chair_i": None, "far": 0.123}
    assert metric_values(run)["sft-long"] == {"chair_i": 0.072, "near": 0.812, "length": 128.4}
    rows = [row for row in metric_table(run) if row["checkpoint"] == "pretrain"]
    assert rows == [{"checkpoint": "pretrain", "metric": "recall_far", "value": 0.1235, "low": 0.0235, "high": 0.2235}]


def test_the_jump_of_the_loss_is_listed(inputs):
    random = np.random.default_rng(0)
    steps = np.arange(1, 61)
    inputs.write_loss("pretrain", 1.0 + 0.02 * random.standard_normal(60), 6000, 1)
    jagged = 1.0 - 0.2 * (steps - 1) / 60 + 0.3 * (steps > 30) + 0.01 * random.standard_normal(60)
    inputs.write_loss("sft-long", jagged, 6000)
    inputs.raw["sft"]["phases"]["long"]["shuffle"] = False
    run = load_run(inputs.params, inputs.root)
    assert list(run.diagnostics) == ["pretrain", "sft-short", "sft-long", "sft-direct"]
    assert run.diagnostics["sft-long"].shuffle is False and run.diagnostics["sft-direct"].shuffle is True
    found = {row["checkpoint"]: row["value"] for row in metric_table(run) if row["metric"] == "jump"}
    assert found == {"sft-long": pytest.approx(0.29, abs=0.03)}  # pretrain: one epoch; the others: logs of four rows


def test_a_difference_is_taken_resample_by_resample(inputs):
    run = load_run(inputs.params, inputs.root)
    found = difference(run, "sft-long", "sft-short", "chair_i")
    assert found.value == pytest.approx(-0.1)
    one, other = (run.checkpoints[name].resamples["chair_i"] for name in ("sft-long", "sft-short"))
    assert [found.low, found.high] == pytest.approx(np.percentile(one - other, [2.5, 97.5]))
    assert found.high - found.low < 2 * 0.04 * 0.9  # narrower than for independent resamples
    back = difference(run, "sft-short", "sft-long", "chair_i")
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    same = difference(run, "sft-long", "sft-long", "chair_i")
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_difference_with_an_undefined_figure_is_undefined(inputs):
    inputs.write_metrics("pretrain", {"chair_i": (None, 0.0), "recall": (0.5, 0.1)})
    run = load_run(inputs.params, inputs.root)
    assert difference(run, "sft-long", "pretrain", "chair_i").value is None
    assert difference(run, "sft-long", "pretrain", "no_such_figure").value is None
    assert difference(run, "sft-long", "pretrain", "recall").defined


def test_a_figure_without_resamples_has_a_difference_without_ends(inputs):
    path = inputs.root / "reports/evaluation/sft-long/metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["intervals"]["distinct_1"] = {"value": 0.25, "low": None, "high": None}
    for name in ("sft-long", "sft-short"):
        inputs.write(f"reports/evaluation/{name}/metrics.json", json.dumps(metrics | {"checkpoint": name}))
    found = difference(load_run(inputs.params, inputs.root), "sft-long", "sft-short", "distinct_1")
    assert found.value == 0 and not found.defined


def test_series_are_read(inputs):
    figure = {"chair_i": {"value": 0.1, "low": None, "high": None}}
    series = {"sentence": [{"at": "1", "texts": 40, "intervals": figure}]}
    series["frequency"] = [{"at": "rare", "texts": 40, "intervals": figure, "kinds": ["dog", "cat"]}]
    inputs.write_metrics("sft-long", {"chair_i": (0.1, 0.02)}, series)
    read = load_run(inputs.params, inputs.root).checkpoints["sft-long"].series
    assert read["sentence"][0].at == "1" and read["sentence"][0].intervals["chair_i"].value == 0.1
    assert read["frequency"][0].kinds == ("dog", "cat")


def test_nan_is_undefined(inputs):
    text = (inputs.root / "reports/evaluation/sft-long/metrics.json").read_text(encoding="utf-8")
    inputs.write("reports/evaluation/sft-long/metrics.json", text.replace("0.1,", "NaN,", 1))
    interval = load_run(inputs.params, inputs.root).checkpoints["sft-long"].evaluation.intervals["chair_i"]
    assert interval.value is None and not interval.defined


@pytest.mark.parametrize(
    "path",
    [
        "reports/loss/sft-long.csv",
        "reports/evaluation/sft-long/metrics.json",
        "reports/evaluation/sft-long/answers.jsonl",
        "reports/evaluation/sft-long/resamples.parquet",
        "data/sft/long/summary.json",
    ],
)
def test_a_missing_file_is_named(inputs, path):
    (inputs.root / path).unlink()
    with pytest.raises(InputError, match=path):
        load_run(inputs.params, inputs.root)


def test_rows_of_the_validation_loss_are_no_part_of_the_training_loss(inputs):
    before = load_run(inputs.params, inputs.root)
    inputs.add_validation_loss("sft-long", {0: 2.5, 900: 1.5})
    run = load_run(inputs.params, inputs.root)
    after = run.checkpoints["sft-long"]
    assert after.loss == before.checkpoints["sft-long"].loss
    assert [(row.target_tokens, row.loss) for row in after.validation_loss] == [(0, 2.5), (900, 1.5)]
    assert (timeline_starts(run), run.diagnostics) == (timeline_starts(before), before.diagnostics)
    rows = [
        row for row in csv.DictReader(io.StringIO(csv_text(LOSS_COLUMNS, loss_table(run)))) if row["validation_loss"]
    ]
    assert [(row["phase"], row["timeline"], row["validation_loss"], row["loss"]) for row in rows] == [
        ("sft-long", "3006", "2.5", ""),
        ("sft-long", "3906", "1.5", ""),
    ]


def test_a_checkpoint_of_an_earlier_epoch_has_the_figures_of_validation_scenes(inputs):
    name = "pretrain/epoch-1"
    inputs.write_metrics(name, {"chair_i": (0.5, 0.02)}, split="validation")
    inputs.write_answers(name, {scene: inputs.answer("有。") for scene in ("小狗-dog", "cat")}, split="validation")
    run = load_run(inputs.params, inputs.root)
    assert list(run.checkpoints)[:2] == [name, "pretrain"]
    assert run.checkpoints[name].reference_lengths["description"] == 3
    assert run.checkpoints[name].evaluation.split == "validation"
    assert "checkpoints of earlier epochs: validation scenes" in render_page(run)


def test_missing_pictures_are_named(inputs):
    (inputs.root / "data/prepared/fixed-00000.parquet").unlink()
    with pytest.raises(InputError, match="fixed"):
        load_run(inputs.params, inputs.root)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("reports/loss/pretrain.csv", "step,epoch,target_tokens,loss\n1,0.1,x,2.0\n", "pretrain.csv, line 2"),
        ("reports/loss/pretrain.csv", "step,epoch,loss\n1,0.1,2.0\n", "no column 'target_tokens'"),
        ("reports/evaluation/pretrain/metrics.json", '{"checkpoint": "pretrain"}', "metrics.json: parameters"),
        ("reports/evaluation/pretrain/answers.jsonl", "[1]\n", "answers.jsonl, line 1"),
        ("reports/evaluation/pretrain/resamples.parquet", "x", "resamples.parquet cannot be read"),
        ("data/sft/short/summary.json", "{", "summary.json"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(inputs, path, text, message):
    inputs.write(path, text)
    with pytest.raises(InputError, match=message):
        load_run(inputs.params, inputs.root)


def test_figures_of_another_checkpoint_are_refused(inputs):
    path = inputs.root / "reports/evaluation/sft-long/metrics.json"
    other = json.loads(path.read_text(encoding="utf-8")) | {"checkpoint": "sft-short"}
    path.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(InputError, match="belongs to checkpoint 'sft-short'"):
        load_run(inputs.params, inputs.root)


def test_a_scene_without_an_answer_is_named(inputs):
    inputs.write_answers("sft-short", {"小狗-dog": inputs.answer("有。")})
    with pytest.raises(InputError, match="no description of scene cat"):
        load_run(inputs.params, inputs.root)


def test_line_separators_inside_a_text_do_not_end_the_line(inputs):
    """U+2028 and U+0085 occur in texts from the web, and JSON does not escape them."""
    text = "第一行\u2028第二行\u0085第三行"
    inputs.write_answers("pretrain", {scene: inputs.answer(text) for scene in ("小狗-dog", "cat")})
    run = load_run(inputs.params, inputs.root)
    assert run.checkpoints["pretrain"].answers["cat", "description"].answer == text
