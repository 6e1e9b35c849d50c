"""Files on this machine: the files of a local folder, and digests.

A local folder of pictures is one item, with a digest of its files' names, sizes and modification times: hashing half a
million pictures would take longer than the stages that use them.
"""

from __future__ import annotations

import glob
import hashlib
import os
from pathlib import Path

from tqdm import tqdm

from stages.common.core.errors import InputError
from stages.fetch.roles import Item, Role, choose

SLOW_TO_HASH = 200_000_000  # bytes from which hashing shows its progress


def local_items(role: Role) -> list[Item]:
    """The files and folders in a local folder that the role's `files` match. Raises InputError."""
    folder = Path(role.source.repo).expanduser()

    def find(pattern: str) -> list[str]:
        name = pattern.rstrip("/")
        if name and (folder / name).exists():
            return [name]
        return sorted(name for name in glob.glob(pattern, root_dir=folder, recursive=True) if (folder / name).is_file())

    try:
        return [local_item(folder / name, name) for name in choose(role, find, lambda: os.listdir(folder))]
    except OSError as error:
        raise InputError(f"{role.param}: {error.filename} cannot be read: {error.strerror}") from None


def local_item(path: Path, name: str) -> Item:
    """The item for a file, or for a folder with everything in it."""
    if not path.is_dir():
        return Item(name, path.stat().st_size, digests(path, name)[0])
    lines, size = [], 0
    for parent, folders, files in os.walk(path):
        folders.sort()
        for file in files:
            stat = os.stat(os.path.join(parent, file))
            relative = os.path.relpath(os.path.join(parent, file), path)
            lines.append(f"{relative}\0{stat.st_size}\0{stat.st_mtime_ns}\n")
            size += stat.st_size
    digest = hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape"))
    return Item(name, size, digest.hexdigest(), count=len(lines))


def digests(path: Path, name: str, git: bool = False) -> tuple[str, str]:
    """The SHA-256 of a file and, if ``git``, its git blob id; ``name`` is for the progress bar."""
    size = path.stat().st_size
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=f"check {name}", disable=size < SLOW_TO_HASH)
    with path.open("rb") as file, bar:
        while block := file.read(1 << 20):
            sha256.update(block)
            if git:
                sha1.update(block)
            bar.update(len(block))
    return sha256.hexdigest(), sha1.hexdigest()
