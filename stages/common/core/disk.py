"""Whether a big output fits on its disk, DVC's copy of it included."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

from dvc.config import Config
from dvc_objects.fs.system import reflink

from stages.common.core.files import free_bytes
from stages.common.core.paths import PROJECT

_RESERVE = 2**28  # bytes that are left to checkpoints and logs


def format_size(size: int) -> str:
    return f"{math.ceil(size / 2**20):,} MiB" if size < 10 * 2**30 else f"{size / 2**30:,.1f} GiB"


def missing_space(output: Path, needed: int) -> str | None:
    """None, or what is missing where ``needed`` bytes don't fit in the folder of ``output``."""
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
    """Whether DVC, if it runs this stage, will put a second copy of an output in ``folder`` on the same disk.

    It brings outputs into its cache by hard links where cache.type names them first; else by sharing blocks where the
    file system can (XFS, Btrfs, APFS), and by copying where it can't.
    """
    if "DVC_ROOT" not in os.environ:
        return False
    dvc = PROJECT.resolve() / ".dvc"
    config = Config(str(dvc))["cache"]
    cache = Path(config.get("dir") or dvc / "cache")
    cache = next(place for place in (cache, *cache.parents) if place.exists())
    if cache.stat().st_dev != folder.stat().st_dev or next(iter(config.get("type") or []), None) == "hardlink":
        return False
    return not _shares_blocks(folder)


def _shares_blocks(folder: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".blocks-") as scratch:
        source = Path(scratch, "source")
        source.write_bytes(bytes(4096))
        try:
            reflink(str(source), str(source.with_name("clone")))
        except OSError:
            return False
    return True
