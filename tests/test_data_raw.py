"""Files of the user's own in data/raw: DVC tracks them, git ignores them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@t")


class Repository:
    """An empty git and DVC repository with the project's own .gitignore and .dvcignore."""

    def __init__(self, root: Path) -> None:
        self.root = root
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_"))}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._env = {**kept, "PATH": path, "GIT_CONFIG_GLOBAL": os.devnull, "HOME": str(root.parent)}
        (root / "data/raw").mkdir(parents=True)
        for name in (".gitignore", ".dvcignore", "data/raw/README.md"):
            shutil.copy(PROJECT / name, root / name)
        self.run("git", "init", "--quiet")
        self.run("dvc", "init", "--quiet")
        self.run("dvc", "config", "core.analytics", "false")
        self.commit()

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.root, env=self._env, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", *IDENTITY, "commit", "--quiet", "--message", "state")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "project").mkdir()
    return Repository(tmp_path / "project")


def test_added_file_survives_garbage_collection(repository: Repository) -> None:
    raw = repository.root / "data/raw/a.txt"
    raw.write_text("rows\n", encoding="utf-8")
    repository.run("dvc", "add", "data/raw/a.txt")
    repository.commit()

    repository.run("dvc", "gc", "--workspace", "--force")
    raw.unlink()
    assert "data/raw/a.txt" in repository.run("dvc", "status")
    repository.run("dvc", "checkout")

    assert raw.read_text(encoding="utf-8") == "rows\n"


def test_git_tracks_only_the_readme_and_dvc_files(repository: Repository) -> None:
    raw = repository.root / "data/raw"
    (raw / "pictures").mkdir()
    for name in ("a.txt", "x", ".hidden", "pictures/1.jpg", "a.txt.dvc", "pictures.dvc"):
        (raw / name).write_text("", encoding="utf-8")

    listed = repository.run("git", "ls-files", "--cached", "--others", "--exclude-standard", "data/raw").split()

    assert sorted(listed) == ["data/raw/README.md", "data/raw/a.txt.dvc", "data/raw/pictures.dvc"]
