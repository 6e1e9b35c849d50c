"""Section train: settings of training stages that DVC does not track."""

from __future__ import annotations

from typing import Literal

from stages.common.config.base import Positive, Section


class TrainParams(Section):
    """No stage runs again for a change here; it can change rounding and with it results, and the points of
    loss logs."""

    processes: Positive
    accelerate_config: str | None
    precision: Literal["auto", "fp32", "bf16"]
    compile: Literal["auto", "always", "never"]
    save_steps: Positive
    logging_steps: Positive
    validation_samples: Positive
