"""The processes that share a stage: which of them this one is, and what they tell each other."""

from __future__ import annotations

import os
from typing import Any


def is_distributed() -> bool:
    """Whether torchrun, or what starts processes in its way, has given this one a number."""
    return "RANK" in os.environ


def rank_and_world_size() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process, of those that share a stage, is the one that writes and speaks."""
    return rank_and_world_size()[0] == 0


def default_device() -> str:
    """Where this process computes, if it is not the Trainer that decides."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def wait_for_everyone() -> None:
    if is_distributed():
        from accelerate import PartialState

        PartialState(cpu=default_device() == "cpu").wait_for_everyone()


def broadcast(value: Any) -> Any:
    """What the first process has here, in every process."""
    if not is_distributed():
        return value
    from accelerate.utils import broadcast_object_list

    wait_for_everyone()
    return broadcast_object_list([value])[0]
