"""The conditions of a regime over seeds, from recorded runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks import regime
from benchmarks.regime import TUNING_SEEDS, gate, set_params
from stages.common.core.errors import InputError
from stages.report.notes_texts import NOTES_TEXTS
from stages.report.regime_runs import (
    DEFAULT,
    RESULTS,
    differences,
    figures_table,
    regime_table,
)
from stages.report.run.regime import CONDITIONS, GROUNDED_CONDITIONS

PASSING = {
    "direct": {
        "chair_i_rise": 0.2,
        "reference_chair_i_rise": 0.05,
        "unsupported": 1.5,
        "precision": 0.65,
        "two_alternative_near": 0.85,
        "recall_near": 0.7,
    },
    "pretrain": {"caption_unsupported": 0.5, "caption_precision": 0.75, "caption_length": 20.0},
}


PARAMS = {"data": {"kinds": 20, "far_sizes": [0.1, 0.2]}, "model": {"projector": "linear"}}


def write_records(
    root: Path, values: dict, shifts: tuple[float, ...] = (-0.01, 0.0, 0.01, -0.005, 0.005), name: str = "try"
) -> None:
    """One record per shift, which is added to every metric of all checkpoints but pretraining."""
    for seed, shift in enumerate(shifts):
        checkpoints = {
            role: {
                "intervals": {
                    key: {"value": value + shift * (role != "pretrain" and not key.startswith("reference"))}
                    for key, value in metrics.items()
                }
            }
            for role, metrics in values.items()
        }
        path = root / RESULTS / name / f"seed-{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({"seed": seed, "code": "c", "params": PARAMS, "checkpoints": checkpoints}), encoding="utf-8"
        )


@pytest.fixture(autouse=True)
def tuning_seeds(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / TUNING_SEEDS).write_text("- 101\n", encoding="utf-8")


def test_all_conditions_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_records(tmp_path, PASSING)
    assert gate(tmp_path, "try")
    assert capsys.readouterr().out.count("holds ") == len(CONDITIONS)


@pytest.mark.parametrize(
    ("role", "metric", "value", "key"),
    [
        ("direct", "chair_i_rise", 0.05, "rise"),
        ("direct", "unsupported", 0.4, "per_text"),
        ("direct", "precision", 0.76, "per_mention"),
        ("direct", "two_alternative_near", 0.79, "looks"),
        ("direct", "recall_near", 0.59, "near"),
        ("pretrain", "caption_length", 31.0, "short"),
        ("pretrain", "caption_precision", 0.69, "precise"),
    ],
)
def test_a_condition_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], role: str, metric: str, value: float, key: str
) -> None:
    write_records(tmp_path, PASSING | {role: PASSING[role] | {metric: value}})
    assert not gate(tmp_path, "try")
    assert f"FAILS  {key} " in capsys.readouterr().out


def test_a_mean_above_zero_is_not_enough(tmp_path: Path) -> None:
    write_records(tmp_path, PASSING, (-0.2, 0.0, 0.3, -0.1, 0.0))
    assert not gate(tmp_path, "try")


def test_tuning_seeds_do_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_records(tmp_path, PASSING)
    (tmp_path / TUNING_SEEDS).write_text("- 4\n", encoding="utf-8")
    assert not gate(tmp_path, "try")
    assert "4 seeds that are not in" in capsys.readouterr().out


@pytest.mark.parametrize(("old", "new"), [('"code": "c"', '"code": "d"'), ('"kinds": 20', '"kinds": 30')])
def test_seeds_of_different_code_or_settings_are_not_averaged(tmp_path: Path, old: str, new: str) -> None:
    write_records(tmp_path, PASSING)
    path = tmp_path / RESULTS / "try/seed-2.json"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match="different code, settings or phases"):
        gate(tmp_path, "try")


def test_differences_are_undefined_without_a_value() -> None:
    record = {"checkpoints": {"direct": {"intervals": {}}, "pretrain": {"intervals": {}}}}
    assert differences([record], CONDITIONS[0]) == [None]


def test_settings_replace_values_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("data:\n  far_sizes:\n  - 0.1\n  - 0.2\n  kinds: 20\n", encoding="utf-8")
    set_params(path, ["data.far_sizes=[0.05,0.1]"])
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {"data": {"far_sizes": [0.05, 0.1], "kinds": 20}}
    with pytest.raises(InputError, match=r"far_size' is not in struct|data\.far_size"):
        set_params(path, ["data.far_size=1"])


def test_the_table_marks_what_holds(tmp_path: Path) -> None:
    write_records(tmp_path, PASSING | {"direct": PASSING["direct"] | {"recall_near": 0.5}})
    head, row = regime_table(tmp_path)
    cells = dict(zip(head, row, strict=True))
    assert cells["seeds"] == "0, 1, 2, 3, 4" and cells["parameters"] == "–"
    assert cells["near"].startswith("−0.10") and cells["looks"].startswith("**+0.05 [")


def test_the_table_lists_the_parameters_in_which_attempts_differ(tmp_path: Path) -> None:
    write_records(tmp_path, PASSING)
    other = {"data": {"kinds": 30, "far_sizes": [0.1, 0.2], "new": 1}, "model": {"projector": "linear"}}
    for path in (tmp_path / RESULTS / "try").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        second = tmp_path / RESULTS / "zoom" / path.name
        second.parent.mkdir(exist_ok=True)
        second.write_text(json.dumps(record | {"params": other}), encoding="utf-8")
    assert [row[:2] for row in regime_table(tmp_path)[1:]] == [
        ["try", "`data.kinds=20`"],
        ["zoom", "`data.kinds=30`, `data.new=1`"],
    ]


def test_figures_beside_the_notes_are_means_and_paired_differences_over_seeds(tmp_path: Path) -> None:
    metrics = {
        "direct": {
            "chair_i": 0.4,
            "two_alternative": 0.75,
            "precision": 0.6,
            "unsupported": 1.5,
            "far_first_chair_i_rise": -0.2,
        },
        "pretrain": {"chair_i": 0.3, "precision": 0.7, "unsupported": 0.5, "caption_chair_i": 0.25},
    }
    metrics["direct"] |= {"chair_i_opening": 0.15, "unsupported_opening": 0.35, "length_opening": 31.0}
    metrics["pretrain"] |= {"chair_i_opening": 0.2}
    write_records(tmp_path, metrics, (-0.01, 0.01), name=DEFAULT)
    for seed, shift in enumerate((-0.03, 0.03)):  # pretraining varies three times as much, with the other
        path = tmp_path / RESULTS / DEFAULT / f"seed-{seed}.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        for value in record["checkpoints"]["pretrain"]["intervals"].values():
            value["value"] += shift
        path.write_text(json.dumps(record), encoding="utf-8")
    head, *rows = figures_table(tmp_path)
    assert {len(row) for row in rows} == {len(head)}
    assert [row[1] for row in rows[: len(NOTES_TEXTS)]] == [text.chair_i for text in NOTES_TEXTS]
    cells = {row[0].removeprefix("ours: "): dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    half = 12.7062 * 0.01  # Student's t for one degree of freedom; the two values are 0.01 from their mean
    direct = cells["direct, long prompt"]
    assert direct["CHAIR-i, %"] == f"40.0 [{100 * (0.4 - half):.1f}, {100 * (0.4 + half):.1f}]"
    assert direct["of first mentions, %"] == f"40.0 [{100 * (0.4 - half):.1f}, {100 * (0.4 + half):.1f}]"
    assert direct["recall, %"] == "–" and direct["two-alternative accuracy, all things, %"].startswith("75.0 [")
    opening = cells["direct, long prompt, first two sentences"]
    assert opening["CHAIR-i, %"] == "" and opening["of first mentions, %"].startswith("15.0 [")
    assert opening["absent kinds a text"].startswith("0.35 [") and opening["characters"].startswith("31.0 [")
    assert cells["pretraining, short prompt"]["CHAIR-i, %"].startswith("25.0 [")
    assert cells["direct, long prompt, far things first"][head[-1]].startswith("−20.0 [")
    change = cells["direct minus pretraining, long prompt"]
    assert change["absent kinds a text"] == f"+1.00 [+{1 - 2 * half:.2f}, +{1 + 2 * half:.2f}]"
    assert change["of first mentions, %"].startswith("+10.0 [")
    change = cells["direct minus pretraining, long prompt, first two sentences"]
    assert change["of first mentions, %"].startswith("−5.0 [") and change["absent kinds a text"] == "–"


def test_records_of_different_phases_do_not_go_under_one_name(tmp_path: Path) -> None:
    write_records(tmp_path, PASSING, (0.0,))
    path = tmp_path / RESULTS / "try/seed-0.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record |= {"seed": 1, "checkpoints": {"long": {"intervals": {}}, "pretrain": {"intervals": {}}}}
    path.with_name("seed-1.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(InputError, match="different code, settings or phases"):
        gate(tmp_path, "try")


@pytest.mark.parametrize("phase", ["direct", "long"])
def test_a_record_is_of_the_phase_that_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    for name in ("pretrain", "sft-direct", "sft-long"):
        folder = tmp_path / "reports/evaluation" / name
        folder.mkdir(parents=True)
        figures = {"intervals": {"of": {"value": name}}, "series": {"sentence": [1], "other": [2]}}
        (folder / "metrics.json").write_text(json.dumps(figures), encoding="utf-8")
        (folder / "provenance.json").write_text("{}", encoding="utf-8")
    (tmp_path / "params.yaml").write_text("seed: 3\nwandb: {mode: disabled}\ndata: {kinds: 20}\n", encoding="utf-8")
    monkeypatch.setattr(regime, "commit_of", lambda _: "0123")
    monkeypatch.setattr(regime, "code_hash", lambda _: "c")
    record = regime._record(tmp_path, 3, phase)
    assert {role: each["intervals"]["of"]["value"] for role, each in record["checkpoints"].items()} == {
        "pretrain": "pretrain",
        phase: f"sft-{phase}",
    }
    assert record["params"] == {"data": {"kinds": 20}} and record["seed"] == 3


def test_the_end_of_the_curriculum_is_judged_by_what_it_must_learn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"precision": 0.9, "recall_near": 0.79}
    write_records(tmp_path, {"long": long, "pretrain": PASSING["pretrain"]}, name="grounded")
    write_records(tmp_path, PASSING)
    assert not gate(tmp_path, "grounded")
    printed = capsys.readouterr().out
    assert "FAILS  long_near " in printed and "holds  long_precise" in printed
    assert len(printed.splitlines()) == 1 + len(GROUNDED_CONDITIONS) + 1
    head, row = regime_table(tmp_path, GROUNDED_CONDITIONS)
    assert (row[0], head[3:]) == ("grounded", ["long_precise", "long_near"])
    assert [row[0] for row in regime_table(tmp_path)[1:]] == ["try"]
    write_records(tmp_path, {"long": long | {"recall_near": 0.85}, "pretrain": PASSING["pretrain"]}, name="grounded")
    assert gate(tmp_path, "grounded")
