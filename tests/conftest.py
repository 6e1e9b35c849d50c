"""For all tests: settings of the process, and what the end of a run prints about skipped tests."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Generator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side

# Started in the background of a script, pytest inherits that Ctrl-C is ignored, and so would every program it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How to have what a test lacks, by a word in the reason of its skip.
REMEDIES = {
    "Chromium": "install Chromium and a Chinese font (Debian, Ubuntu: apt-get install chromium fonts-noto-cjk)",
    "checkout": "needs MiniMind-V's files and numbers in ../shared/upstream, beside this folder",
    "shared/": "needs MiniMind-V's files and numbers in ../shared/upstream, beside this folder",
    "GPU": "needs an NVIDIA GPU and a build of torch for CUDA",
}


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def skipped_tests(config: pytest.Config) -> list[pytest.TestReport | pytest.CollectReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.stats.get("skipped", []) if reporter else []


def refused_skips(config: pytest.Config) -> list[pytest.TestReport | pytest.CollectReport]:
    """The skipped tests that fail the run: with FAIL_ON_SKIP in the environment, all but those that need a GPU."""
    if not os.environ.get("FAIL_ON_SKIP") or hasattr(config, "workerinput"):
        return []
    return [report for report in skipped_tests(config) if "cuda" not in report.keywords]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and refused_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, object, object]:
    """Print, last but for the closing line, which tests were skipped, why, and how to run them."""
    result = yield
    reasons = Counter(skip_reason(report) for report in skipped_tests(config))
    if reasons:
        terminalreporter.section("skipped tests")
    for reason, count in reasons.most_common():
        remedy = next((f" - {how}" for part, how in REMEDIES.items() if part in reason), "")
        terminalreporter.write_line(f"{count} skipped: {reason}{remedy}")
    for report in refused_skips(config):
        terminalreporter.write_line(f"ERROR: {report.nodeid} was skipped, and FAIL_ON_SKIP is set")
    return result
