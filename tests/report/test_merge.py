"""Other stages' files become one run: only what params.yaml names, on one time line, and errors that name the file."""

from __future__ import annotations

import json

import pytest

from stages.common.errors import InputError
from stages.report.merge import (
    LOSS_COLUMNS,
    LossRow,
    csv_text,
    epoch_boundaries,
    load_run,
    loss_table,
    metric_table,
    metric_values,
    timeline_starts,
)


def test_checkpoints_come_in_the_order_of_the_phases(inputs):
    assert list(load_run(inputs.params, inputs.root).checkpoints) == ["pretrain", "sft-short", "sft-long", "sft-direct"]


def test_files_of_a_removed_phase_are_ignored(inputs):
    inputs.write("reports/loss/sft-gone.csv", "not,a,loss\n")
    inputs.write("reports/evaluation/sft-gone/metrics.json", "{")
    del inputs.raw["sft"]["phases"]["direct"]  # its files stay where they are
    run = load_run(inputs.params, inputs.root)
    assert list(metric_values(run)) == ["pretrain", "sft-short", "sft-long"]
    assert {row["phase"] for row in loss_table(run)} == {"pretrain", "sft-short", "sft-long"}
    assert {row["checkpoint"] for row in metric_table(run)} == {"pretrain", "sft-short", "sft-long"}


def test_a_run_starts_where_the_checkpoint_it_continues_ended(inputs):
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
    assert text[0] == "phase,step,timeline,epoch,loss"
    assert text[1] == "pretrain,1,250,0.5,3.0"
    assert "sft-direct,4,7008,2.0,0.75" in text  # 1000 of pretraining, then 2 x 3004
    for phase in ("pretrain", "sft-long"):
        line = [row["timeline"] for row in rows if row["phase"] == phase]
        assert line == sorted(line)


def test_epochs_end_between_two_logged_steps():
    rows = [LossRow(1, 0.8, 80, 1.0), LossRow(2, 1.3, 130, 1.0), LossRow(3, 2.0, 230, 1.0)]
    assert epoch_boundaries(rows) == [pytest.approx(100)]
    assert epoch_boundaries([LossRow(1, 2.0, 200, 1.0)]) == [pytest.approx(100)]
    assert epoch_boundaries([LossRow(1, 0.5, 50, 1.0), LossRow(2, 1.0, 100, 1.0)]) == []
    assert epoch_boundaries([]) == []


def test_merged_figures_have_the_checkpoint_on_top_and_none_where_undefined(inputs):
    inputs.write_metrics("pretrain", {"chair_i": (None, 0.0), "recall": (0.123456, 0.1), "caption_f1": (None, 0.0)})
    run = load_run(inputs.params, inputs.root)
    assert metric_values(run)["pretrain"] == {"chair_i": None, "recall": 0.1235}  # the short prompt's are elsewhere
    assert metric_values(run)["sft-long"]["chair_i"] == 0.1
    rows = [row for row in metric_table(run) if row["checkpoint"] == "pretrain"]
    assert rows == [{"checkpoint": "pretrain", "metric": "recall", "value": 0.1235, "low": 0.0235, "high": 0.2235}]


def test_figures_that_are_no_numbers_are_undefined(inputs):
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
        "data/sft/long/summary.json",
    ],
)
def test_a_missing_file_is_named(inputs, path):
    (inputs.root / path).unlink()
    with pytest.raises(InputError, match=path):
        load_run(inputs.params, inputs.root)


def test_missing_pictures_are_named(inputs):
    (inputs.root / "data/prepared/fixed-00000.parquet").unlink()
    with pytest.raises(InputError, match="fixed"):
        load_run(inputs.params, inputs.root)


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("reports/loss/pretrain.csv", "step,epoch,target_tokens,loss\n1,0.1,x,2.0\n", "pretrain.csv, line 2"),
        ("reports/loss/pretrain.csv", "step,epoch,loss\n1,0.1,2.0\n", "no column 'target_tokens'"),
        ("reports/evaluation/pretrain/metrics.json", '{"checkpoint": "pretrain"}', "metrics.json: parameters"),
        ("reports/evaluation/pretrain/answers.jsonl", "[1]\n", "answers.jsonl, line 1"),
        ("data/sft/short/summary.json", "{", "summary.json"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(inputs, path, text, words):
    inputs.write(path, text)
    with pytest.raises(InputError, match=words):
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


def test_line_separators_within_a_text_end_no_line(inputs):
    """U+2028 and U+0085 stand in texts from the web, and JSON leaves them as they are."""
    said = "第一行\u2028第二行\u0085第三行"
    inputs.write_answers("pretrain", {scene: inputs.answer(said) for scene in ("小狗-dog", "cat")})
    run = load_run(inputs.params, inputs.root)
    assert run.checkpoints["pretrain"].answers["cat", "description"].answer == said
