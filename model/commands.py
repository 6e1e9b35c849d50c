"""Shared by this package's command lines: errors as one sentence, outputs that are complete or absent."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import transformers

from model.errors import ConversionError


def run_command(main: Callable[[], None]) -> None:
    """Run ``main``; a ConversionError becomes one line on stderr and exit code 2."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        main()
    except ConversionError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def require_new(target: Path) -> None:
    """Raises ConversionError unless ``target`` is absent or an empty directory."""
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise ConversionError(f"{target} already exists: delete it or give another path")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` for a file or a directory; renamed to ``target`` if the block raises nothing.

    Raises ConversionError as ``require_new`` does, and if the path cannot be written.
    """
    require_new(target)
    partial = target.absolute().with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, target)
    except OSError as error:
        raise ConversionError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
