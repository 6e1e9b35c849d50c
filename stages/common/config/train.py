"""Section train: how training stages work."""

from __future__ import annotations

from typing import Literal

from stages.common.config.base import Positive, Section


class TrainParams(Section):
    """How training stages work: no stage runs again for it. It may move last digits, and the points of loss logs."""

    processes: Positive
    accelerate_config: str | None
    precision: Literal["auto", "fp32", "bf16"]
    compile: Literal["auto", "always", "never"]
    save_steps: Positive
    logging_steps: Positive
