"""Whether a large output fits on its disk, including DVC's copy of it."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

from dvc.config import Config
from dvc_objects.fs.system import reflink

from stages.common.core.files import free_bytes
from stages.common.core.paths import PROJECT

_RESERVE = 2**28  # bytes kept free for checkpoints and logs


def format_size(size: int) -> str:
    return f"{math.ceil(size / 2**20):,} MiB" if size < 10 * 2**30 else f"{size / 2**30:,.1f} GiB"


def missing_space(output: Path, needed: int) -> str | None:
    """What is wrong where ``needed`` bytes do not fit in the folder of ``output``; None where they do."""
    folder = output.parent
    copied, free = dvc_copies(folder), free_bytes(folder)
    if needed * (1 + copied) + _RESERVE <= free:
        return None
    copy = ", as much again for the copy in DVC's cache" if copied else ""
    return (
        f"{output} needs {format_size(needed)}{copy} and {format_size(_RESERVE)} to spare, "
        f"but the disk has {format_size(free)} free"
    )


def dvc_copies(folder: Path) -> bool:
    """Whether DVC runs this stage and will put a second copy of an output in ``folder`` on the same disk.

    DVC puts outputs into its cache as hard links where cache.type names them first; else as reflinks where the file
    system supports them (XFS, Btrfs, APFS), and as copies where it does not.
    """
    if "DVC_ROOT" not in os.environ:
        return False
    dvc = PROJECT.resolve() / ".dvc"
    config = Config(str(dvc))["cache"]
    cache = Path(config.get("dir") or dvc / "cache")
    cache = next(path for path in (cache, *cache.parents) if path.exists())
    if cache.stat().st_dev != folder.stat().st_dev or next(iter(config.get("type") or []), None) == "hardlink":
        return False
    return not _supports_reflinks(folder)


def _supports_reflinks(folder: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".reflink-") as scratch:
        source = Path(scratch, "source")
        source.write_bytes(bytes(4096))
        try:
            reflink(str(source), str(source.with_name("clone")))
        except OSError:
            return False
    return True
