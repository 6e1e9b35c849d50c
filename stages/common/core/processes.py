"""The processes that share a stage.

Rank and world size are read from the variables that torchrun and accelerate launch set. accelerate's PartialState has
them, too, but imports torch and opens the process group, for which stages that do not compute would have to wait.
"""

from __future__ import annotations

import os
from typing import Any


def is_distributed() -> bool:
    """Whether torchrun or accelerate launch has started this process with a rank."""
    return "RANK" in os.environ


def rank_and_world_size() -> tuple[int, int]:
    """The rank of this process, and the number of processes."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process is the one that prints and writes outputs."""
    return rank_and_world_size()[0] == 0


def default_device() -> str:
    """The device of this process, for computations outside the Trainer."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def wait_for_everyone() -> None:
    """Returns when all processes have called it."""
    if is_distributed():
        from accelerate import PartialState

        PartialState(cpu=default_device() == "cpu").wait_for_everyone()


def broadcast(value: Any) -> Any:
    """The ``value`` of the main process, in every process; all must call it together."""
    if not is_distributed():
        return value
    from accelerate.utils import broadcast_object_list

    wait_for_everyone()
    return broadcast_object_list([value])[0]
