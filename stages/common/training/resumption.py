"""Saved states of a training run: where they lie, and when they may be continued."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.core.errors import InputError
from stages.common.core.paths import RESUME_ROOT
from stages.common.core.processes import is_main_process


def fingerprint_of(*parts: Any) -> str:
    """A digest of params (as JSON), files and folders: what must be equal for a resumption to be right."""
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

    It is no output of DVC's (which deletes outputs before a re-run), and it is locked: when dvc is killed, its
    child trains on, and a second one must not write beside it. Raises InputError if another process holds it.
    """
    RESUME_ROOT.mkdir(parents=True, exist_ok=True)
    folder = RESUME_ROOT / f"{stage}-{fingerprint}"
    if not is_main_process():  # the first process holds it for all
        yield folder
        return
    with (RESUME_ROOT / f"{stage}-{fingerprint}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process is already training {stage} here: wait for it, or stop it first"
            ) from None
        folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder)
        Path(lock.name).unlink()


def last_state(folder: Path) -> Path | None:
    """The newest complete state; the trainer's state file is written last but for our log."""
    states = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    complete = [
        state for state in states if (state / "loss_log.json").exists() and (state / "trainer_state.json").exists()
    ]
    return complete[-1] if complete else None
