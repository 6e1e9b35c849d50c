"""What a stage took: seconds from the start of its process, imports included, and memory at its peak.

The files are no outputs of DVC's: they differ between two runs whose results are equal.
"""

from __future__ import annotations

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
from stages.common.core.processes import is_main_process

_PACKAGES = ("evaluate",)  # their modules are stages; all other stages are modules of `stages` itself


def stage_name(main: ModuleType, arguments: list[str]) -> str | None:
    """The name of the stage whose module ``main`` was started with ``arguments``: vision, sft-short, answer-sft-short.

    None where ``main`` is no stage, or has arguments that no stage has (`stages.evaluate.score --manifest ...`).
    """
    spec = getattr(main, "__spec__", None)
    parts = spec.name.removesuffix(".__main__").split(".") if spec else []
    if parts[1:-1] and parts[1] in _PACKAGES:
        del parts[1]
    is_stage = len(parts) == 2 and parts[0] == "stages" and not any(word.startswith("-") for word in arguments)
    return "-".join([parts[1], *arguments]) if is_stage else None


def write_time() -> None:
    """Write the file of the stage that this process has run. Of several processes, the main one writes.

    Stage report has none: it is the one that reads these files.
    """
    name = stage_name(sys.modules["__main__"], sys.argv[1:])
    if name in (None, "report") or not is_main_process():
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
