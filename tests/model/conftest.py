"""What several tests of the model's command lines and processors do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model.commands import run_command

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[[Callable], Command]:
    """Turns a module's ``main`` into a function of command-line arguments that returns exit code and output."""

    def of(main: Callable[[], None]) -> Command:
        def run(*arguments: str | Path) -> tuple[int, str]:
            monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
            capsys.readouterr()
            try:
                run_command(main)
            except SystemExit as stop:
                return stop.code, capsys.readouterr().err
            return 0, capsys.readouterr().out

        return run

    return of
