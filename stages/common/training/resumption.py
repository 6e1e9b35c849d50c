"""Saved states of a training run: where they are kept, and when they may be continued."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stages.common.core.paths import LOCKS, RESUME_ROOT
from stages.common.core.processes import broadcast, is_main_process

_POLL_SECONDS = 0.2  # between looks at a lock that another process holds
_SECONDS_BETWEEN_EXCHANGES = 60.0


def fingerprint_of(*parts: Any) -> str:
    """Hash of params (as JSON), files and folders. Training may be resumed only where it is equal."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
                if file.is_file():
                    digest.update(file.name.encode())
                    with file.open("rb") as stream:
                        digest.update(hashlib.file_digest(stream, "sha256").digest())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


@contextmanager
def resume_folder(stage: str, fingerprint: str) -> Iterator[Path]:
    """A folder for a stage's saved states: kept when the block fails, removed when it succeeds.

    It is no output of DVC's, which deletes outputs before a stage runs again. A lock file lets one process at a time
    train the stage with this fingerprint; another one (a second worker of `dvc queue`, or a run that was started again
    after dvc alone was killed) waits until the lock is free. A killed process releases its lock.
    """
    folder = RESUME_ROOT / f"{stage}-{fingerprint}"
    lock = FileLock(lock_file(folder), poll_interval=_POLL_SECONDS)
    lock_file(folder).parent.mkdir(parents=True, exist_ok=True)
    _acquire(lock, stage)
    try:
        if is_main_process():
            folder.mkdir(exist_ok=True)
        yield folder
        if is_main_process():
            shutil.rmtree(folder)
    finally:
        lock.release()


def lock_file(folder: Path) -> Path:
    """The lock of the states in ``folder``. It is never deleted: others may be waiting for it."""
    return folder.parent / LOCKS / f"{folder.name}.lock"


def _acquire(lock: FileLock, stage: str) -> None:
    """The main process holds the lock for all processes of the stage, which return together.

    They exchange the state of the lock once a minute: torch ends processes that wait longer for each other.
    """
    seconds = 0.0
    while not broadcast(not is_main_process() or _acquired(lock, seconds)):
        if is_main_process() and not seconds:
            print(f"another process is training {stage} here; waiting for it", flush=True)
        seconds = _SECONDS_BETWEEN_EXCHANGES


def _acquired(lock: FileLock, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    return True


def last_state(folder: Path) -> Path | None:
    """The newest complete state, or None. LossLog writes its file after the Trainer has written all of its own."""
    states = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    complete = [
        state for state in states if (state / "loss_log.json").exists() and (state / "trainer_state.json").exists()
    ]
    return complete[-1] if complete else None
