"""Fixtures of the tests of stage fetch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_hub import FakeHub
from tests.fetch.project import Project, files


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(files()) as hub:
        yield hub


@pytest.fixture
def project(tmp_path: Path, hub: FakeHub) -> Project:
    folder = tmp_path / "a project"
    folder.mkdir()
    return Project(folder, hub.env(tmp_path / "hf"))
