"""The time and memory of a stage are written when it has done its work, and only then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from stages.common.core.timing import stage_name

ROOT = Path(__file__).parents[2]
STAGE = """
import os, sys, time
from stages.common.core.errors import InputError
from stages.common.core.stage import run_stage

time.sleep(0.5)  # as imports take

def main():
    time.sleep(0.3)
    if len(sys.argv) > 1 and sys.argv[1] == "bad":
        raise InputError("no")

run_stage(main)
"""


def run(folder: Path, *arguments: str, module: str = "stages.try", **env: str) -> dict[str, dict]:
    """Files of reports/time after a module of this name has run, by name."""
    package = folder / "code" / "stages"
    package.mkdir(parents=True, exist_ok=True)
    # A package that shadows the real one, and has the real one's modules as well.
    own = (ROOT / "stages/__init__.py").read_text(encoding="utf-8")
    (package / "__init__.py").write_text(f"{own}\n__path__.append({str(ROOT / 'stages')!r})\n", encoding="utf-8")
    (package / f"{module.rpartition('.')[2]}.py").write_text(STAGE, encoding="utf-8")
    path = os.pathsep.join([str(folder / "code"), str(ROOT)])
    subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **env},
        capture_output=True,
        timeout=60,
        check=False,
    )
    files = (folder / "reports/time").glob("*.json")
    return {file.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        ("stages.vision", [], "vision"),
        ("stages.prepare.__main__", [], "prepare"),
        ("stages.sft", ["short"], "sft-short"),
        ("stages.evaluate.answer.__main__", ["sft-short"], "answer-sft-short"),
        ("stages.evaluate.score.__main__", ["sft-short"], "score-sft-short"),
        ("stages.evaluate.score.__main__", ["--manifest", "photographs.yaml", "texts.json"], None),
        ("stages.common.config.__main__", ["model.projector"], None),
        ("stages.report.readme", [], None),
        ("pytest.__main__", [], None),
    ],
)
def test_stage_names(module: str, arguments: list[str], expected: str | None) -> None:
    main = ModuleType("__main__")
    main.__spec__ = ModuleSpec(module, None)
    assert stage_name(main, arguments) == expected


def test_a_script_is_no_stage() -> None:
    assert stage_name(ModuleType("__main__"), []) is None


@pytest.mark.parametrize(("arguments", "name"), [((), "try.json"), (("sft-long",), "try-sft-long.json")])
def test_seconds_count_from_the_start_of_the_process(tmp_path: Path, arguments: tuple[str, ...], name: str) -> None:
    before = datetime.now(UTC)
    times = run(tmp_path, *arguments)
    elapsed = (datetime.now(UTC) - before).total_seconds()
    assert list(times) == [name]
    assert 0.8 <= times[name]["seconds"] <= elapsed + 0.1
    assert abs((datetime.fromisoformat(times[name]["started"]) - before).total_seconds()) < 2
    assert 5e6 < times[name]["peak_memory"] < 5e9


def test_a_stage_that_fails_writes_none(tmp_path: Path) -> None:
    assert run(tmp_path, "bad") == {}


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    assert run(tmp_path, RANK="1") == {}
    assert list(run(tmp_path, RANK="0")) == ["try.json"]


def test_a_module_that_is_no_stage_writes_none(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "tests/params.yaml").read_bytes())
    assert run(tmp_path, module="stages.common.config") == {}


def test_memory_is_not_that_of_the_parent_process(tmp_path: Path) -> None:
    held = b"1" * 400_000_000
    assert run(tmp_path)["try.json"]["peak_memory"] < len(held) / 2


def test_stage_report_writes_none(tmp_path: Path) -> None:
    """It is the stage that reads them."""
    assert run(tmp_path, module="stages.report") == {}
