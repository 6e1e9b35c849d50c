"""Runs of all combinations of a regime's knobs, and the table made from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import regime
from stages.report.knob_runs import COLUMNS, KNOBS, combinations, knob_settings, knob_table, run_name
from stages.report.regime_runs import RESULTS

# What each knob adds to every metric, and two of them together beyond their sum.
EFFECTS = {"blind": 1.0, "no-region": -10.0, "clean": 100.0}
TOGETHER = 6.0


def write_record(root: Path, combination: frozenset[str], seed: int, without: str | None = None) -> None:
    value = seed + sum(EFFECTS[knob] for knob in combination) + TOGETHER * ({"blind", "clean"} <= combination)
    intervals = {column.metric: {"value": value} for column in COLUMNS if column.metric != without}
    path = root / RESULTS / run_name(combination) / f"seed-{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoints = {role: {"intervals": intervals} for role in ("direct", "pretrain")}
    record = {"seed": seed, "code": "c", "params": sorted(combination), "checkpoints": checkpoints}
    path.write_text(json.dumps(record), encoding="utf-8")


def test_all_combinations_in_an_order_that_shares_stages() -> None:
    names = [Path(run_name(each)).name for each in combinations()]
    assert len(set(names)) == 8 and names[:2] == ["default", "blind"]
    assert [knob_settings(each) for each in combinations()][1] == ["language.grounding=blind"]
    changed_texts = ["clean" in name for name in names]
    assert changed_texts == sorted(changed_texts)


def test_effects_are_means_over_pairs_that_differ_in_one_knob(tmp_path: Path) -> None:
    for combination in combinations():
        for seed in (1, 2):
            write_record(tmp_path, combination, seed)
    rows = {row[0]: row[1:] for row in knob_table(tmp_path)}
    assert len(rows) == 1 + 8 + len(KNOBS)
    assert rows["default"][:2] == ["1, 2", "1.50"]
    assert rows["blind+no-region+clean"][1] == "98.50"
    assert rows["effect of blind"][1] == "+4.00 (+1.00 … +7.00)"
    assert rows["effect of no-region"][1] == "−10.00 (−10.00 … −10.00)"
    assert rows["effect of clean"][1] == "+103.00 (+100.00 … +106.00)"


def test_a_part_of_the_combinations(tmp_path: Path) -> None:
    assert knob_table(tmp_path) == []
    write_record(tmp_path, frozenset(), 1)
    write_record(tmp_path, frozenset({"blind"}), 1, without="chair_i_rise")
    write_record(tmp_path, frozenset({"blind"}), 2)
    rows = {row[0]: row[1:] for row in knob_table(tmp_path)}
    assert set(rows) == {"", "default", "blind", *(f"effect of {knob}" for knob in KNOBS)}
    assert rows["blind"][1] == "–" and rows["effect of blind"][1] == "–", "undefined, not zero"
    assert rows["effect of blind"][2] == "+1.00 (+1.00 … +1.00)", "of the seed that has both"
    assert rows["effect of clean"][2] == "–"


def test_recorded_runs_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(tmp_path, frozenset(), 1)
    write_record(tmp_path, frozenset({"blind"}), 2)
    done = []
    monkeypatch.setattr(
        regime, "run_seed", lambda root, name, seed, settings, threads, phase: done.append((name, seed))
    )
    attempts = [(run_name(each), knob_settings(each)) for each in combinations()[:2]]
    regime.run_seeds(tmp_path, attempts, [1, 2], 1)
    assert done == [("knobs/blind", 1), ("knobs/default", 2)]


def test_one_failure_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise regime.InputError("dvc repro failed")

    monkeypatch.setattr(regime, "run_seed", fail)
    with pytest.raises(regime.InputError, match="dvc repro failed"):
        regime.run_seeds(tmp_path, [("try", [])], [1, 2], 2)
