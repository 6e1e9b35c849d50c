"""Number format of matrix products."""

from __future__ import annotations

import time
from functools import lru_cache

import torch


@lru_cache(maxsize=1)
def use_bf16(precision: str) -> bool:
    """Whether to multiply in bf16. ``auto`` measures both formats once: some processors emulate bf16, more slowly."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(512, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
        a @ b
        times = []
        for _ in range(5):
            started = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - started)
        seconds[dtype] = min(times)
    return seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]
