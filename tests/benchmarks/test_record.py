"""A recorded run holds what its tables need, and nothing that changed after the commit goes unnoticed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import record as module
from benchmarks.record import changed_params, checkpoint_folders, code_hash, command, machine, record
from stages.common.config.params import Params
from stages.common.core.errors import InputError
from stages.report.recorded_runs import read_run

ROOT = Path(__file__).resolve().parents[2]
INTERVAL = {"value": 0.1, "low": 0.05, "high": 0.15}
MADE = {
    "torch": "2.13.0",
    "transformers": "5.23",
    "processor": "A processor",
    "precision": "bf16",
    "compiled": False,
    "processes": 1,
}


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the outputs of a run under it; DVC is replaced by fixed answers."""
    raw = yaml.safe_load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/code.py").write_text("a = 1\n", encoding="utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "start")
    for name in Params.model_validate(raw).checkpoints:
        write(
            tmp_path / f"reports/evaluation/{name}/metrics.json",
            {"checkpoint": name, "scenes": 20, "intervals": {"chair_i": INTERVAL, "bleu": INTERVAL}},
        )
        write(tmp_path / f"reports/evaluation/{name}/provenance.json", {"training": MADE, "answer": MADE})
    jumps = [f"sft-{phase},jump,0.02,,\n" for phase in raw["sft"]["phases"]]
    (tmp_path / "reports/checkpoints.csv").write_text(
        "checkpoint,metric,value,low,high\npretrain,chair_i,0.1,0.09,0.11\n" + "".join(jumps), encoding="utf-8"
    )
    for phase in raw["sft"]["phases"]:
        write(tmp_path / f"data/sft/{phase}/summary.json", {"target_tokens": 1000})
    stages = {"prepare": "prepare", "score@long": "evaluate.score sft-long", "report": "report"}
    commands = stages | {"sft@removed": "sft removed"}
    lock = {"stages": {name: {"cmd": f"python -m stages.{command}"} for name, command in commands.items()}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    write(tmp_path / "reports/time/prepare.json", {"seconds": 2.0})
    write(tmp_path / "reports/time/score-sft-long.json", {"seconds": 3.2})
    write(tmp_path / "reports/time/removed.json", {"seconds": 100.0})
    original = module._run

    def run(root: Path, *words: str) -> str:
        if "dvc" in words:
            return "\n".join(stages) if "stage" in words else "{}"
        return original(root, *words)

    monkeypatch.setattr(module, "_run", run)
    return tmp_path


def params(root: Path) -> Params:
    return Params.model_validate(yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8")))


def change_seed(root: Path, seed: int) -> None:
    raw = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    (root / "params.yaml").write_text(yaml.safe_dump(raw | {"seed": seed}), encoding="utf-8")


def test_a_record_says_how_to_repeat_the_run(project: Path) -> None:
    change_seed(project, 7)
    found = record(project, params(project))
    assert found["command"] == "dvc exp run -S 'seed=7'"
    assert found["commit"] == git(project, "rev-parse", "HEAD").strip()
    assert (found["seed"], found["params"], found["scenes"], found["seconds"]) == (7, {"seed": 7}, 20, 5)
    assert found["machine"]["processor"] == "A processor" and found["machine"]["cores"] >= 1


def test_the_code_of_a_run_is_that_of_its_commit(project: Path) -> None:
    before = code_hash(project)
    write(project / "README.md", "another text")
    git(project, "add", ".")
    git(project, "commit", "-qm", "text")
    assert code_hash(project) == before
    (project / "stages/code.py").write_text("x = 2\n", encoding="utf-8")
    git(project, "add", ".")
    git(project, "commit", "-qm", "code")
    assert code_hash(project) != before


def test_a_record_has_the_metrics_that_tables_need(project: Path) -> None:
    found = record(project, params(project))["checkpoints"]
    assert found["pretrain"] == {"chair_i": INTERVAL}
    phase = next(name for name in found if name.startswith("sft-"))
    assert found[phase]["jump"]["value"] == 0.02


def test_a_record_can_be_read_for_the_tables(project: Path) -> None:
    write(project / "benchmarks/results/seed-1.json", record(project, params(project)))
    run = read_run(project / "benchmarks/results/seed-1.json")
    assert run.value("pretrain", "chair_i") == 0.1
    assert run.value("pretrain", "recall") is None


def test_the_time_of_a_run_is_unknown_without_that_of_a_stage(project: Path) -> None:
    (project / "reports/time/prepare.json").unlink()
    assert record(project, params(project))["seconds"] is None


def test_a_chain_counts_all_of_its_phases(project: Path) -> None:
    chosen = params(project)
    counted = module.target_tokens(project, chosen)
    for phase in chosen.sft.phases:
        assert counted[f"sft-{phase}"] == chosen.sft.epochs * 1000 * len(chosen.sft.chain(phase))


def test_nothing_of_this_machine_but_its_processor_is_recorded(project: Path) -> None:
    text = json.dumps(record(project, params(project)))
    assert str(project) not in text and "/" not in text.replace("/metrics", "")


def test_code_that_differs_from_the_commit_is_bad_input(project: Path) -> None:
    (project / "stages/code.py").write_text("a = 2\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"stages/code\.py differs from the commit"):
        record(project, params(project))


def test_a_missing_output_is_bad_input(project: Path) -> None:
    (project / "reports/evaluation/pretrain/metrics.json").unlink()
    with pytest.raises(InputError, match=r"pretrain/metrics\.json is missing: run `dvc repro` first"):
        record(project, params(project))


def test_a_stage_that_has_to_run_again_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_run", lambda *_: '{"vision": [{"changed deps": {}}]}')
    with pytest.raises(InputError, match="stage 'vision' is not up to date"):
        module.require_up_to_date(Path())


def test_a_name_with_a_path_is_bad_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["record", "../seed-1"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 2 and "'../seed-1' is not a name" in capsys.readouterr().err


def test_commands_of_changed_added_and_removed_parameters() -> None:
    before = {"seed": 1, "sft": {"max_len": 96, "phases": {"short": {"after": "pretrain"}}}, "models": {}}
    after = {"seed": 1, "sft": {"max_len": None, "phases": {}}, "models": {"one": {"files": ["a.pth"]}}}
    changed = changed_params(before, after)
    assert {name: change.value for name, change in changed.items()} == {
        "sft.max_len": None,
        "sft.phases.short": None,
        "models.one": {"files": ["a.pth"]},
    }
    assert command(changed) == (
        "dvc exp run -S 'sft.max_len=null' -S '~sft.phases.short' -S '+models.one={files:[a.pth]}'"
    )
    assert command({}) == "dvc repro"


def test_checkpoints_of_earlier_epochs_come_before_the_last(tmp_path: Path) -> None:
    for number in (10, 9):
        (tmp_path / f"reports/evaluation/pretrain/epoch-{number}").mkdir(parents=True)
    assert list(checkpoint_folders(tmp_path, ["pretrain"])) == ["pretrain/epoch-9", "pretrain/epoch-10", "pretrain"]


def test_a_machine_lists_what_differs_between_checkpoints() -> None:
    other = MADE | {"compiled": True}
    answered = MADE | {"precision": "fp32"}
    found = machine([{"training": MADE, "answer": answered}, {"training": other, "answer": answered}])
    shared = {key: MADE[key] for key in ("torch", "transformers", "processor")}
    assert found == shared | {
        "training": {"precision": "bf16", "compiled": [False, True], "processes": 1},
        "answer": {"precision": "fp32", "compiled": False, "processes": 1},
    }


def test_a_model_that_was_not_trained_here_has_no_training() -> None:
    assert "training" not in machine([{"training": None, "answer": MADE}])
