"""How the loss changes where one epoch ends and the next begins.

Each logged loss is the mean over the steps since the row before it. All figures are in nats per target token.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_START = 0.1  # share of a run that is left out: warm-up and the first fall are not typical of an epoch
_MIN_POSITIONS = 8  # inside epochs, fewer do not show what is typical
_WINDOW = 0.1  # share of an epoch's points on each side of a boundary
_MIN_WINDOW, _MAX_WINDOW = 2, 25  # points
_ROUNDING = 1e-4  # of epochs in a log


class LossRow(NamedTuple):
    """One logged step; ``target_tokens`` and ``epoch`` count from the start of this training run."""

    step: int
    epoch: float
    target_tokens: int
    loss: float


class Jump(NamedTuple):
    """The change of the loss at the end of ``epoch``.

    ``size``: mean loss of the first ``window`` points of the next epoch minus that of the last ones of this epoch.
    ``typical``, ``typical_sd``: mean and standard deviation of the same difference at ``positions`` inside epochs.
    """

    epoch: int
    size: float
    typical: float
    typical_sd: float
    positions: int
    window: int

    def expected(self, confidence: float) -> tuple[float, float]:
        """Student's prediction interval of the change at one more position inside epochs.

        Neighbouring positions share points, so that only every ``window``-th one counts as an observation of its own.
        """
        from scipy.stats import t  # loads for a second

        observations = max(2.0, self.positions / self.window)
        half = float(t.ppf((1 + confidence) / 2, observations - 1)) * self.typical_sd * math.sqrt(1 + 1 / observations)
        return self.typical - half, self.typical + half


class LossDiagnostics(NamedTuple):
    """Of one training run. ``shuffle``: whether each epoch had a new order of samples."""

    jumps: tuple[Jump, ...]
    shuffle: bool


def jumps(rows: Sequence[LossRow]) -> list[Jump]:
    """The change of the loss at the end of each epoch but the last, and the same change at positions inside epochs.

    A placebo test: windows of the same width are moved along the log, without its first tenth, and never across a
    boundary. Empty if the log has too few points. A row whose steps belong to two epochs is left out.
    """
    epochs = max((round(row.epoch) for row in rows), default=0)
    if epochs < 2:
        return []
    starts = [0.0, *(row.epoch for row in rows[:-1])]
    inside_epochs = [
        [row for row, start in zip(rows, starts, strict=True) if _within(start, row.epoch, epoch)]
        for epoch in range(epochs)
    ]
    window = int(np.clip(_WINDOW * min(map(len, inside_epochs)), _MIN_WINDOW, _MAX_WINDOW))
    losses = [np.array([row.loss for row in part]) for part in inside_epochs]
    settled = [np.array([row.loss for row in part if row.epoch > _START * epochs]) for part in inside_epochs]
    inside = [
        part[at : at + window].mean() - part[at - window : at].mean()
        for part in settled
        for at in range(window, len(part) - window + 1)
    ]
    if min(map(len, losses)) < window or len(inside) < _MIN_POSITIONS:
        return []
    found = []
    for epoch, (before, after) in enumerate(itertools.pairwise(losses), start=1):
        found.append(
            Jump(
                epoch=epoch,
                size=float(after[:window].mean() - before[-window:].mean()),
                typical=float(np.mean(inside)),
                typical_sd=float(np.std(inside, ddof=1)),
                positions=len(inside),
                window=window,
            )
        )
    return found


def _within(start: float, end: float, epoch: int) -> bool:
    """Whether all steps of a row, from ``start`` to ``end`` in epochs, belong to ``epoch``, counted from 0."""
    return start >= epoch - _ROUNDING and end <= epoch + 1 + _ROUNDING
