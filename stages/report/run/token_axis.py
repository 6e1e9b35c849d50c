"""Positions of training runs and of the ends of their epochs on one axis of target tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stages.report.run.load_run import Run
from stages.report.run.loss_diagnostics import LossRow

_EPOCH_SLACK = 0.01  # a log that ends at epoch 2.004 has two epochs, not three


def timeline_starts(run: Run) -> dict[str, int]:
    """Target tokens that each training run starts at: the end of the checkpoint that it continues.

    Two arms that continue the same checkpoint start at the same position.
    """

    def start(name: str) -> int:
        parent = run.checkpoints[name].after
        return 0 if parent is None else start(parent) + run.checkpoints[parent].target_tokens

    return {name: start(name) for name in run.checkpoints}


def epoch_boundaries(rows: Sequence[LossRow]) -> list[float]:
    """Target tokens, within this training run, at which one epoch ends and another begins.

    The log has no row at the boundary itself, so that its position is interpolated between the neighbouring rows.
    """
    if not rows:
        return []
    boundaries = []
    for epoch in range(1, math.ceil(rows[-1].epoch - _EPOCH_SLACK)):
        before = max((r for r in rows if r.epoch <= epoch), key=lambda r: r.epoch, default=LossRow(0, 0.0, 0, 0.0))
        after = min((r for r in rows if r.epoch > epoch), key=lambda r: r.epoch)
        share = (epoch - before.epoch) / (after.epoch - before.epoch)
        boundaries.append(before.target_tokens + share * (after.target_tokens - before.target_tokens))
    return boundaries
