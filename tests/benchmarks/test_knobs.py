"""Runs of all combinations of a regime's knobs, and the table made from them."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from benchmarks import regime
from stages.report.knob_runs import COLUMNS, KNOBS, combinations, knob_settings, knob_table, run_name
from stages.report.regime_runs import RESULTS

# What each knob adds to every metric, and two of them together beyond their sum.
EFFECTS = {"blind": 1.0, "no-region": -10.0, "clean": 100.0}
TOGETHER = 6.0
PRETRAIN = 0.5  # what the metrics of pretraining are above those of direct


def write_record(
    root: Path, combination: frozenset[str], seed: int, without: str | None = None, code: str = "c", kinds: int = 32
) -> None:
    value = seed + sum(EFFECTS[knob] for knob in combination) + TOGETHER * ({"blind", "clean"} <= combination)
    checkpoints = {
        role: {"intervals": {each.metric: {"value": value + more} for each in COLUMNS if each.metric != without}}
        for role, more in (("direct", 0.0), ("pretrain", PRETRAIN))
    }
    path = root / RESULTS / run_name(combination) / f"seed-{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    params = {"data": {"kinds": kinds, "unsupported": 0.0 if "clean" in combination else 0.005}}
    record = {"seed": seed, "code": code, "params": params, "checkpoints": checkpoints}
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
    assert rows["clean+no-region+blind"][1] == "98.50"
    captions = 1 + [column.role for column in COLUMNS].index("pretrain")
    assert rows["default"][captions] == "2.00"
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
    assert rows["effect of blind"][0] == "pairs: 1" and rows["effect of clean"][2] == "–"


def test_pairs_in_which_a_metric_is_undefined_are_not_counted(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_record(tmp_path, frozenset(), seed)
        write_record(tmp_path, frozenset({"blind"}), seed, without="chair_i_rise" if seed == 2 else None)
    rows = {row[0]: row[1:] for row in knob_table(tmp_path)}
    assert rows["effect of blind"][1] == "+1.00 (+1.00 … +1.00, 1 of 2 pairs)"


@pytest.mark.parametrize("changed", [{"code": "d"}, {"kinds": 60}])
def test_combinations_may_differ_in_the_knobs_only(tmp_path: Path, changed: dict) -> None:
    write_record(tmp_path, frozenset(), 1)
    write_record(tmp_path, frozenset({"clean"}), 1, **changed)
    with pytest.raises(regime.InputError, match="knobs/default and knobs/clean are of different code or settings"):
        knob_table(tmp_path)


def test_recorded_runs_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(tmp_path, frozenset(), 1)
    write_record(tmp_path, frozenset({"blind"}), 2)
    done = []
    monkeypatch.setattr(regime, "run_seed", lambda root, *rest: done.append(rest))
    attempts = [(run_name(each), knob_settings(each)) for each in combinations()[:2]]
    regime.run_seeds(tmp_path, attempts, [1, 2], 1, "long")
    cores = os.cpu_count()
    assert done == [
        ("knobs/blind", 1, ["language.grounding=blind"], cores, "long"),
        ("knobs/default", 2, [], cores, "long"),
    ]


def test_after_a_failure_nothing_else_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, failed, other = [], threading.Event(), threading.Event()

    def run(root: Path, name: str, seed: int, *_: object) -> None:
        started.append((name, seed))
        if seed == 1:
            assert other.wait(10)
            failed.set()
            raise regime.InputError("dvc repro failed")
        other.set()
        assert failed.wait(10)
        time.sleep(0.2)  # so that the other thread is through

    monkeypatch.setattr(regime, "run_seed", run)
    with pytest.raises(regime.InputError, match="dvc repro failed"):
        regime.run_seeds(tmp_path, [("one", []), ("two", [])], [1, 2], 2)
    assert sorted(started) == [("one", 1), ("one", 2)]
