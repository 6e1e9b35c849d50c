"""A run that is interrupted or killed ends all its processes; a killed process of it is a one-line error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.prepare.file_runs import ROOT
from tests.prepare.file_sources import folder_of_images, line

RUN = """
import sys
from pathlib import Path
from stages.common.core.files import atomic_directory
from stages.prepare.files import RowSource, write_files
from tests.prepare.file_runs import parameters
if __name__ == "__main__":
    here = Path(sys.argv[1])
    with atomic_directory(here / "target") as folder:
        params = parameters(2, shard_scenes=int(sys.argv[2]))
        write_files(None, RowSource(here / "s.jsonl", here / "images"), [], params, folder, here / "q.jsonl")
"""


@pytest.fixture
def long_run(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A run of some minutes, well under way, with one bad row; the parameter is the number of rows in a job."""
    (tmp_path / "run.py").write_text(RUN, "utf-8")
    folder_of_images(tmp_path / "images")
    (tmp_path / "s.jsonl").write_bytes(b"{\n" + (line(0) + b"\n" + line(9) + b"\n") * 50_000)
    Image.new("RGB", (800, 800)).save(tmp_path / "images/图0.jpg")
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path), str(request.param)]
    run = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    shards = 1 if request.param > 1000 else 20
    wait_for(lambda: len(list((tmp_path / ".target.partial").glob("train-*"))) >= shards)
    yield run
    run.kill()
    run.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError


def children(run: subprocess.Popen) -> list[Path]:
    found = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    return [Path("/proc", child) for child in found]


@pytest.mark.parametrize("long_run", [20, 300_000], indirect=True)
def test_an_interrupt_ends_all_processes_and_leaves_no_folder(long_run: subprocess.Popen, tmp_path: Path) -> None:
    processes = children(long_run)
    assert len(processes) >= 2
    for number in [int(path.name) for path in processes] + [long_run.pid]:  # as a terminal does
        os.kill(number, signal.SIGINT)
    message = long_run.communicate(timeout=30)[1]
    assert long_run.returncode not in (0, None) and message.rstrip().endswith("KeyboardInterrupt")
    if "20" in long_run.args:  # a process that is still starting prints the interrupt, too
        assert message.count("Traceback") == 1
    wait_for(lambda: not any(path.exists() for path in processes))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "q.jsonl", "run.py", "s.jsonl"]


@pytest.mark.parametrize("long_run", [20], indirect=True)
def test_a_killed_process_is_a_one_line_error(long_run: subprocess.Popen, tmp_path: Path) -> None:
    worker = next(path for path in children(long_run) if b"spawn_main" in (path / "cmdline").read_bytes())
    os.kill(int(worker.name), signal.SIGKILL)
    message = long_run.communicate(timeout=30)[1]
    assert "a process of stage prepare was killed, perhaps because memory ran out" in message.splitlines()[-1]
    assert not (tmp_path / ".target.partial").exists()


@pytest.mark.parametrize("long_run", [20, 300_000], indirect=True)
def test_processes_end_with_their_parent(long_run: subprocess.Popen, tmp_path: Path) -> None:
    processes = children(long_run)
    if "20" in long_run.args:
        wait_for(lambda: (tmp_path / "q.jsonl").read_text().endswith("}\n"))  # complete lines at any moment
    long_run.kill()
    wait_for(lambda: not any(path.exists() for path in processes))
