"""What a stage took: seconds from the start of its process, imports included, and memory at its peak."""

from __future__ import annotations

import os
import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

from stages import STARTED
from stages.common.core.files import write_json
from stages.common.core.memory import peak_memory
from stages.common.core.paths import TIMES


def stage_name(main: ModuleType, arguments: list[str]) -> str | None:
    """vision, sft-short, evaluate-sft-short; None where ``main``, the module that was started, is no stage."""
    spec = getattr(main, "__spec__", None)
    parts = spec.name.removesuffix(".__main__").split(".") if spec else []
    return "-".join([parts[1], *arguments]) if len(parts) == 2 and parts[0] == "stages" else None


def write_time() -> None:
    """For the stage that this process is, once it has done its work. Of several processes, the first one writes.

    Stage report has none, because it reads these files: with its own among them, it would never be up to date.
    """
    name = stage_name(sys.modules["__main__"], sys.argv[1:])
    if name in (None, "report") or os.environ.get("RANK", "0") != "0":
        return
    seconds = time.monotonic() - STARTED
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    value = {
        "started": (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "peak_memory": max(peak_memory(), children),  # bytes, of the largest of its processes
    }
    write_json(time_file(name), value)


def time_file(stage: str, root: Path = Path()) -> Path:
    return root / TIMES / f"{stage}.json"
