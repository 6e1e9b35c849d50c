"""Section wandb."""

from __future__ import annotations

from typing import Literal

from stages.common.config.base import Section


class WandbParams(Section):
    mode: Literal["offline", "online", "disabled"]
    project: str
