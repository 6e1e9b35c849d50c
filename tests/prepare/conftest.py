"""Fixtures of the tests that convert data files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.prepare import files, workers
from tests.prepare.file_sources import folder_of_images, jsonl, line, zip_of_images


def run_here(tasks: list[workers.Task], _: int) -> Any:
    yield from ((task, workers.run_task(task)) for task in tasks)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process takes half a second."""
    monkeypatch.setattr(files, "run_tasks", run_here)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    jsonl(folder / "sft.jsonl", 200, {3: b"{", 77: line(76, image="../x.jpg"), 200: line(199, conversations=[])})
    jsonl(folder / "pretrain.jsonl", 150, {5: line(4, image="none.jpg,图1.jpg")}, start=1000)
    zip_of_images(folder / "images.zip")
    folder_of_images(folder / "images")
    return folder
