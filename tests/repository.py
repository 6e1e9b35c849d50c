"""A copy of the project in a git repository of its own, in which DVC is run as a user runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_COPIED = {".git", ".venv", ".venv-lock", ".resume", "wandb", "dvc.lock", "dvc_plots"}
NOT_COPIED |= {"reports", "metrics", "checkpoints"}
NOT_COPIED |= {
    f"data/{out}"
    for out in ("fetched", "prepared", "tokenizer", "vision", "language", "features", "mean_features.npy", "sft")
}
NOT_COPIED |= {f".dvc/{name}" for name in ("cache", "tmp", "config.local")}
# Other processes may write these during the copy.
CHANGING = shutil.ignore_patterns("__pycache__", ".pytest_cache", ".hypothesis", "*.partial*")


class Repository:
    """``preset`` and then ``values`` are written into the tests' parameters, ``env`` into the environment."""

    def __init__(self, root: Path, preset: str, values: Mapping[str, str], env: Mapping[str, str]) -> None:
        self.root = root
        python = Path(sys.executable).parent
        dropped = ("DVC_", "GIT_", "WANDB_", "HF_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
        self.env = {
            **kept,
            "PATH": f"{python}:{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "HOME": str(root.parent),
            "OMP_NUM_THREADS": "1",
            **env,
        }

        def not_copied(folder: str, names: list[str]) -> set[str]:
            inside = Path(folder).relative_to(ROOT)
            return CHANGING(folder, names) | {name for name in names if (inside / name).as_posix() in NOT_COPIED}

        shutil.copytree(ROOT, root, ignore=not_copied)
        shutil.copy(ROOT / "tests/params.yaml", root / "params.yaml")
        self.run("git", "init", "--quiet")
        self.run("python", "-m", "stages.common.config.preset", preset)
        if values:
            self.set(values)
        self.commit()

    def set(self, values: Mapping[str, str]) -> None:
        """Write ``values`` into params.yaml."""
        (self.root / "values.args").write_text("".join(f"-S {key}={value}\n" for key, value in values.items()))
        self.run("python", "-m", "stages.common.config.preset", "values.args")

    def run(self, *command: str) -> str:
        """Run ``command``, which must succeed; returns what it prints, stderr included."""
        done = self.end(*command)
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}"
        return done.stdout

    def end(self, *command: str) -> subprocess.CompletedProcess[str]:
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.run(command, cwd=self.root, env=self.env, text=True, check=False, **output)

    def stages_run(self, *command: str) -> set[str]:
        """Run ``command``; returns the stages that DVC reports as run."""
        return set(re.findall(r"Running stage '([^']+)'", self.run(*command)))

    def append(self, path: str, text: str) -> None:
        """Write ``text`` at the end of a file."""
        with (self.root / path).open("a", encoding="utf-8") as file:
            file.write(text)

    def changed_stages(self) -> set[str]:
        """The stages that `dvc repro` would run because of their own parameters and files, without running any. Stages
        behind them run if the outputs of these change."""
        return set(json.loads(self.run("dvc", "status", "--json")))

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "state")

    def restore(self) -> None:
        """Back to the committed state."""
        self.run("git", "reset", "--quiet", "--hard")
        self.run("dvc", "checkout", "--quiet", "--force")
