"""What a stage took is written when it has done its work, and only then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

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
    """Times that a module of this name leaves."""
    package = folder / "code" / "stages"
    package.mkdir(parents=True, exist_ok=True)
    # A package of the same name before the real one, whose modules it shows as well.
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


@pytest.mark.parametrize(("arguments", "name"), [((), "try.json"), (("sft-long",), "try-sft-long.json")])
def test_seconds_count_from_the_start_of_the_process(tmp_path: Path, arguments: tuple[str, ...], name: str) -> None:
    before = datetime.now(UTC)
    times = run(tmp_path, *arguments)
    elapsed = (datetime.now(UTC) - before).total_seconds()
    assert list(times) == [name]
    assert 0.8 <= times[name]["seconds"] <= elapsed + 0.1
    assert abs((datetime.fromisoformat(times[name]["started"]) - before).total_seconds()) < 2
    assert 5e6 < times[name]["peak_memory"] < 5e9


def test_who_fails_leaves_none(tmp_path: Path) -> None:
    assert run(tmp_path, "bad") == {}


def test_only_the_first_of_several_processes_writes(tmp_path: Path) -> None:
    assert run(tmp_path, RANK="1") == {}
    assert list(run(tmp_path, RANK="0")) == ["try.json"]


def test_what_is_no_stage_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "tests/params.yaml").read_bytes())
    assert run(tmp_path, module="stages.common.config") == {}


def test_memory_is_not_that_of_who_started_it(tmp_path: Path) -> None:
    held = b"1" * 400_000_000
    assert run(tmp_path)["try.json"]["peak_memory"] < len(held) / 2


def test_stage_report_leaves_none_because_it_reads_them(tmp_path: Path) -> None:
    """With its own among them, its folder would be another one in every clone."""
    assert run(tmp_path, module="stages.report") == {}
