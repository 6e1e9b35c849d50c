"""Memory of this process: reuse of freed memory, and the peak so far."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from pathlib import Path

# Names of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def reuse_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the system.

    By default it maps every large buffer anew and unmaps it after use, so each tensor of a training step causes page
    faults: 5.8 s a step instead of 2.4 s (26 M parameters, 8,320 tokens, bf16, 2 cores). No effect without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)


def peak_memory() -> int:
    """Peak of this process, in bytes.

    ``ru_maxrss`` also counts the memory of the parent process before exec; Linux's VmHWM does not.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)[1])
    except (OSError, TypeError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
