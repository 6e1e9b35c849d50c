"""Memory of this process: freed memory is kept instead of given back to the system; the peak so far."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from pathlib import Path

# Names of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def reuse_memory() -> None:
    """Let big buffers come from memory that was used before.

    glibc maps every big buffer anew and unmaps it after use, so that each of a training step's tensors is paid for
    with page faults: 5.8 s a step instead of 2.4 s (26 M parameters, 8,320 tokens, bf16, 2 cores). Does nothing
    where there is no glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)


def peak_memory() -> int:
    """Bytes, since this process runs its program.

    ``ru_maxrss`` starts with what the process had that started it; Linux has a figure that does not.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)[1])
    except (OSError, TypeError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
