"""Reads image files by name, from a folder or a zip archive."""

from __future__ import annotations

import errno
import stat
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from stages.prepare.archive import Archive, safe_name
from stages.prepare.quarantine import BadRow

_MAX_FILE = 1 << 26  # bytes of an image file


class Images(NamedTuple):
    """A folder, or a zip archive and its index."""

    path: Path
    index: Path | None


def load_image(images: Images | None, name: str) -> bytes:
    """The bytes of an image file. Raises BadRow."""
    if images is None:
        raise BadRow("image named, but no folder or zip of images given", name)
    try:
        if images.index is not None:
            return _archive(images.path, images.index).read(name, _MAX_FILE)
        return _read_file(images.path / safe_name(name), name)
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
        raise BadRow("image missing" if missing else "image cannot be read", name) from None


@lru_cache(maxsize=2)
def _archive(path: Path, index: Path) -> Archive:
    return Archive(path, index)


def _read_file(path: Path, name: str) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would block forever
        raise BadRow("image missing", name)
    with path.open("rb") as file:
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise BadRow(f"image file larger than {_MAX_FILE} bytes", name)
    return data
