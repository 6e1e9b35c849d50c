"""Files and folders that are written completely or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.core.errors import InputError


def partial_path(target: Path) -> Path:
    """Where ``target`` is written before it is complete."""
    return target.with_name(f".{target.name}.partial")


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target``; replaces it when the block ends without an error."""
    partial = partial_path(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


def require_model(folder: Path, stage: str) -> None:
    """Raises InputError where ``stage`` has left no model in ``folder``; transformers would look for it on the Hub."""
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} holds no model: run `dvc repro {stage}` first")


def free_bytes(path: Path) -> int:
    """Space left on the disk that holds ``path``."""
    return shutil.disk_usage(path).free


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8. Another process reads either the old file or the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
