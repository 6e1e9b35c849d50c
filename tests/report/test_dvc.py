"""DVC reads the outputs of the report, in a repository of their own: a table in a terminal and a page of plots."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages.report import __main__ as report
from tests.report.conftest import ROOT, Inputs

FIGURES = {"chair_i": (0.118, 0.02), "recall_near": (0.676, 0.02), "recall_far": (0.176, 0.02)}
FIGURES |= {"length": (228.4, 3.0), "chair_i_rise": (-0.152, 0.02)}
FIGURES["unsupported"] = (2.015, 0.02)
COLUMNS = ["Path", "chair_i", "far", "length", "near", "rise", "wrong"]


class Reported:
    """A report on the phases of the project's own params.yaml, in a repository with its dvc.yaml."""

    def __init__(self, inputs: Inputs, patch: pytest.MonkeyPatch) -> None:
        self.inputs, self.root, self.patch = inputs, inputs.root, patch
        raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        inputs.raw["sft"]["phases"] = raw["sft"]["phases"]
        for name in inputs.params.checkpoints:
            inputs.write_checkpoint(name)
            inputs.write_metrics(name, FIGURES)
        shutil.copy(ROOT / "dvc.yaml", self.root)
        shutil.copytree(ROOT / ".dvc/plots", self.root / ".dvc/plots")
        shutil.copy(ROOT / ".dvc/config", self.root / ".dvc/config")
        self.run("git", "init", "--quiet")
        self.report()

    def report(self) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(self.inputs.raw, sort_keys=False), encoding="utf-8")
        self.patch.chdir(self.root)
        report.main()

    def run(self, *command: str) -> str:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_"))}
        env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "COLUMNS": "80", "HOME": str(self.root.parent)}
        done = subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "state")


@pytest.fixture
def reported(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> Reported:
    return Reported(inputs, monkeypatch)


def test_the_table_of_metrics_fits_a_terminal(reported: Reported) -> None:
    lines = reported.run("dvc", "metrics", "show").rstrip().splitlines()
    assert lines[0].split() == COLUMNS
    checkpoints = {line.split()[0]: dict(zip(COLUMNS[1:], line.split()[1:], strict=True)) for line in lines[1:]}
    assert set(checkpoints) == {f"metrics/{name}.json" for name in reported.inputs.params.checkpoints}
    assert max(map(len, lines)) <= 80
    assert float(checkpoints["metrics/sft-medium.json"]["near"]) == 0.676


def test_a_removed_phase_is_in_the_difference_and_not_in_the_table(reported: Reported) -> None:
    reported.commit()
    reported.inputs.write_metrics("sft-long", FIGURES | {"chair_i": (0.2, 0.02)})
    del reported.inputs.raw["sft"]["phases"]["unshuffled"]
    reported.report()
    assert "sft-unshuffled" not in reported.run("dvc", "metrics", "show")
    lines = [line.split() for line in reported.run("dvc", "metrics", "diff").splitlines()]
    assert ["metrics/sft-long.json", "chair_i", "0.118", "0.2", "0.082"] in lines
    assert {line[0] for line in lines[1:]} == {"metrics/sft-long.json", "metrics/sft-unshuffled.json"}


def test_the_plots_have_curves_figures_and_pictures(reported: Reported) -> None:
    reported.run("dvc", "plots", "show", "--out", "plots")
    page = (reported.root / "plots/index.html").read_text(encoding="utf-8")
    assert "Training loss of all phases" in page and "Metrics per checkpoint" in page
    assert "sft-unshuffled" in page and '"moving mean"' in page and '"validation_loss"' in page
    drawn = sorted(path.name for path in (reported.root / "plots/static").iterdir())
    assert drawn == ["workspace_reports_scenes_01-dog.svg", "workspace_reports_scenes_02-cat.svg"]
    assert all(f'src="static/{name}"' in page for name in drawn)


def test_experiments_are_listed_with_the_main_columns(reported: Reported) -> None:
    """The command of the README: main figures of both arms and every changed parameter, no hashes."""
    reported.commit()
    reported.inputs.raw["sft"]["max_len"] = 120
    for name in ("sft-long", "sft-direct"):
        reported.inputs.write_metrics(name, {key: (0.9 * value, spread) for key, (value, spread) in FIGURES.items()})
    reported.report()
    other = r"^(?!Experiment|metrics/sft-(long|direct)\..*(chair_i|near|far)|seed|[a-z]+\.)"
    header = reported.run("dvc", "exp", "show", "--csv", "--only-changed", "--drop", other).splitlines()[0]
    figures = [
        f"metrics/sft-{arm}.json:{figure}" for arm in ("direct", "long") for figure in ("chair_i", "far", "near")
    ]
    assert sorted(header.split(",")) == [*figures, "sft.max_len"]


def test_a_checkpoint_of_an_earlier_epoch_has_a_row() -> None:
    assert report.metrics_file("sft-long") == "sft-long.json"
    assert report.metrics_file("sft-long/epoch-1") == "sft-long.1.json"
