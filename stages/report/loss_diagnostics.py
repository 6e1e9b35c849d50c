"""How the loss changes where one epoch ends and the next begins.

Each logged loss is the mean over the steps since the row before it. All figures are in nats per target token.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_START = 0.1  # of a run: warm-up and first fall, which say nothing about what is usual inside an epoch
_MIN_PLACES = 8  # inside epochs, to tell what is usual
_WINDOW = 0.1  # of an epoch's points, on each side of a boundary
_MIN_WINDOW, _MAX_WINDOW = 2, 25
_ROUNDING = 1e-4  # of epochs in a log


class LossRow(NamedTuple):
    """One logged step; ``target_tokens`` and ``epoch`` count from the start of this training run."""

    step: int
    epoch: float
    target_tokens: int
    loss: float


class Jump(NamedTuple):
    """Where ``epoch`` ends. ``size``: mean loss of the first ``window`` points of the next epoch minus that of the
    last ones of this. ``usual``, ``noise``: mean and standard deviation of the same difference at ``places`` inside
    epochs; ``share``: of those places, the part with a difference at least as large. ``drift``: mean loss of the
    last ``window`` points of the next epoch minus that of its first ones."""

    epoch: int
    size: float
    noise: float
    usual: float
    places: int
    share: float
    window: int
    drift: float


class LossDiagnostics(NamedTuple):
    """Of one training run. ``shuffle``: whether it drew a new order of samples each epoch."""

    jumps: tuple[Jump, ...]
    shuffle: bool


def jumps(rows: Sequence[LossRow]) -> list[Jump]:
    """The change of the loss at every place where an epoch ends, beside the same change at places inside epochs.

    A placebo test: windows of the same width are moved along the log, without its first tenth, and never across a
    boundary. Empty where the log has too few points for it. A row that takes part in two epochs belongs to none.
    """
    epochs = max((round(row.epoch) for row in rows), default=0)
    if epochs < 2:
        return []
    starts = [0.0, *(row.epoch for row in rows[:-1])]
    whole = [
        [row for row, start in zip(rows, starts, strict=True) if _within(start, row.epoch, epoch)]
        for epoch in range(epochs)
    ]
    window = int(np.clip(_WINDOW * min(map(len, whole)), _MIN_WINDOW, _MAX_WINDOW))
    losses = [np.array([row.loss for row in part]) for part in whole]
    settled = [np.array([row.loss for row in part if row.epoch > _START * epochs]) for part in whole]
    inside = [
        part[at : at + window].mean() - part[at - window : at].mean()
        for part in settled
        for at in range(window, len(part) - window + 1)
    ]
    if min(map(len, losses)) < window or len(inside) < _MIN_PLACES:
        return []
    found = []
    for epoch, (before, after) in enumerate(itertools.pairwise(losses), start=1):
        begins, ends = after[:window].mean(), after[-window:].mean()
        size = begins - before[-window:].mean()
        found.append(
            Jump(
                epoch=epoch,
                size=float(size),
                noise=float(np.std(inside, ddof=1)),
                usual=float(np.mean(inside)),
                places=len(inside),
                share=float(np.mean(np.array(inside) >= size)),
                window=window,
                drift=float(ends - begins),
            )
        )
    return found


def _within(start: float, end: float, epoch: int) -> bool:
    """Whether a row's steps, from ``start`` to ``end`` in epochs, all belong to ``epoch``, counted from 0."""
    return start >= epoch - _ROUNDING and end <= epoch + 1 + _ROUNDING
