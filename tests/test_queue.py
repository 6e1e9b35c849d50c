"""Two queued experiments side by side, from an empty cache: both need the same stages, and neither fails."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.repository import Repository

EXPERIMENTS = {"slow": "1.0e-4", "fast": "1.0e-3"}  # name: sft.learning_rate
SHARED = ("fetch", "prepare", "tokenizer", "vision", "language", "encode", "pretrain", "curriculum")
TIMEOUT = 900  # seconds; about 80 on two idle cores

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    repository = Repository(tmp_path_factory.mktemp("queue") / "project", "presets/smoke.args", {"sft.epochs": "1"}, {})
    yield repository
    repository.end("dvc", "queue", "stop", "--kill")


def statuses(repository: Repository) -> dict[str, str]:
    """The status of each queued experiment: Queued, Running, Success or Failed.

    An experiment may be missing: `dvc queue status` fails where it reads a file that a worker is just writing.
    """
    rows = [line.split() for line in repository.end("dvc", "queue", "status").stdout.splitlines()]
    return {row[1]: row[-1] for row in rows if len(row) > 2 and row[1] in EXPERIMENTS}


def lock_of(repository: Repository, experiment: str) -> dict[str, dict]:
    """The stages of the dvc.lock that an experiment recorded."""
    refs = repository.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    ref = next(ref for ref in refs if ref.endswith(f"/{experiment}"))
    return yaml.safe_load(repository.run("git", "show", f"{ref}:dvc.lock"))["stages"]


def test_two_experiments_that_need_the_same_stages_both_succeed(repository: Repository) -> None:
    for name, rate in EXPERIMENTS.items():
        repository.run("dvc", "exp", "run", "--queue", "--name", name, "-S", f"sft.learning_rate={rate}", "sft@short")
    assert statuses(repository) == dict.fromkeys(EXPERIMENTS, "Queued")

    # Without pipes: the workers inherit them, and reading them would end only with the workers.
    command = ("dvc", "queue", "start", "--jobs", "2")
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command, cwd=repository.root, env=repository.env, check=True, **streams)
    end = time.monotonic() + TIMEOUT
    found = {}
    while {found.get(name) for name in EXPERIMENTS} - {"Success", "Failed"} and time.monotonic() < end:
        time.sleep(3)
        found = statuses(repository)
    logs = [repository.end("dvc", "queue", "logs", name).stdout[-3000:] for name in EXPERIMENTS]
    assert found == dict.fromkeys(EXPERIMENTS, "Success"), "\n\n".join(logs)

    slow, fast = (lock_of(repository, name) for name in EXPERIMENTS)
    assert {stage: slow[stage] for stage in SHARED} == {stage: fast[stage] for stage in SHARED}
    assert slow["sft@short"]["outs"] != fast["sft@short"]["outs"]
    assert not list((repository.root / ".resume").glob("*-*"))  # saved states of training
