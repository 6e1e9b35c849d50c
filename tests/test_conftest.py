"""What the end of a test run prints about skipped tests, and when they fail it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """\
import pytest

@pytest.mark.skipif(True, reason="no Chromium is installed")
def test_page():
    pass

@pytest.mark.cuda
@pytest.mark.skipif(True, reason="there is no GPU")
def test_kernel():
    pass

def test_sum():
    assert 1 + 1 == 2
"""


def run_tests(folder: Path, processes: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(Path(__file__).with_name("conftest.py"), folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = cuda\naddopts = -ra --strict-markers\n", encoding="utf-8")
    (folder / "test_few.py").write_text(TESTS, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "FAIL_ON_SKIP"))}
    command = [sys.executable, "-m", "pytest", "-n", processes, "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, env=kept | settings, capture_output=True, text=True, check=False)


def test_the_last_lines_list_what_was_skipped_and_how_to_run_it(tmp_path: Path) -> None:
    done = run_tests(tmp_path, "0")
    assert done.returncode == 0, done.stdout
    *_, browser, gpu, closing = done.stdout.splitlines()
    assert browser.startswith("1 skipped: no Chromium is installed - install Chromium")
    assert gpu.startswith("1 skipped: there is no GPU - needs an NVIDIA GPU")
    assert "1 passed, 2 skipped in" in closing


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_skip_fails_the_run_on_request(tmp_path: Path, processes: str) -> None:
    done = run_tests(tmp_path, processes, FAIL_ON_SKIP="1")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("ERROR")] == [
        "ERROR: test_few.py::test_page was skipped, and FAIL_ON_SKIP is set"
    ]
    assert "1 passed, 2 skipped in" in lines[-1]


def test_tests_that_need_a_gpu_may_be_skipped(tmp_path: Path) -> None:
    assert run_tests(tmp_path, "0", "-k", "not page", FAIL_ON_SKIP="1").returncode == 0
