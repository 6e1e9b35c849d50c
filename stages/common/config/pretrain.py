"""Section pretrain."""

from __future__ import annotations

from typing import Literal

from stages.common.config.base import Positive
from stages.common.config.loop import TokenLoopParams


class PretrainParams(TokenLoopParams):
    scenes: Positive | None
    max_len: Positive
    fit: Literal["filter", "cut"]
