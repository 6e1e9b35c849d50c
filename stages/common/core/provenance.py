"""What can change a result besides code, data and params: libraries, processor, number format, processes."""

from __future__ import annotations

import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.common.core.files import write_json

Provenance = dict[str, Any]
FILE = "provenance.json"  # beside a checkpoint's weights, and beside metrics


def provenance(precision: str, compiled: bool, processes: int) -> Provenance:
    """Keys: torch, transformers (versions), processor (model name of the GPU or, without one, the CPU), precision
    ("bf16" or "fp32": what matrices were multiplied in), compiled (whether by torch.compile), processes (how many
    shared the work)."""
    import torch

    return {
        "torch": str(torch.__version__),
        "transformers": version("transformers"),
        "processor": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name(),
        "precision": precision,
        "compiled": compiled,
        "processes": processes,
    }


def cpu_name() -> str:
    """Linux has the model's name in a file; elsewhere, what the system calls its processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def write_provenance(folder: Path, value: Provenance) -> None:
    write_json(folder / FILE, value)
