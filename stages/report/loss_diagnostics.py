"""What the loss tells: where it settles on a plateau, and what it does where one epoch ends and the next begins.

Each logged loss is the mean over the steps since the row before it. All figures are in nats per target token.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_MIN_ROWS = 16  # fewer points say nothing about a plateau
_MAX_ROWS = 400  # longer logs are averaged down to at most that many points; keeps the bootstrap quick
_KNEES = 200  # places tried for the plateau's beginning
_PENALTY = 3  # parameters that a knee costs: its place, a slope, and one more for having been searched for
_EXACT = 1e-12  # sum of squares that rounding alone may leave
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


class Plateau(NamedTuple):
    """``tokens`` (interval ``low``, ``high``), ``step``, ``epoch``: where it begins. ``level``: mean loss from there
    on; ``drop`` with its interval: what the fitted line still loses from there to the end."""

    tokens: int
    step: int
    epoch: float
    low: int
    high: int
    level: float
    drop: float
    drop_low: float
    drop_high: float


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

    plateau: Plateau | None
    jumps: tuple[Jump, ...]
    shuffle: bool


def plateau(rows: Sequence[LossRow], samples: int, confidence: float, seed: int) -> Plateau | None:
    """Where a steep fall of the loss turns into a flatter course; None where it does not, or with too few points.

    Two straight lines that meet, through the logarithm of the loss over target tokens, by least squares over a grid of
    meeting points; against one straight line by BIC (Schwarz 1978), where the meeting point counts twice, as it is
    searched for, and points that are like their neighbours count less. Intervals: percentiles over ``samples``
    moving-block bootstraps of the residuals (Kuensch 1989), in blocks of the cube root of the number of points.
    """
    rows = [row for row in rows if np.isfinite(row.loss) and row.loss > 0]
    if len(rows) < _MIN_ROWS:
        return None
    tokens, loss = _thinned(rows)
    place, logs = tokens / tokens[-1], np.log(loss)
    knees = np.linspace(place[2], place[-3], _KNEES)
    bases = [np.linalg.qr(_columns(place, knee))[0] for knee in knees]
    straight = np.linalg.qr(np.stack([np.ones_like(place), place], axis=1))[0]
    best = _best(bases, logs[:, None])[0]
    fitted = bases[best] @ (bases[best].T @ logs)
    residuals = logs - fitted
    before, after = _slopes(place, knees[best], fitted)
    points = _independent(residuals)
    left = np.sum((logs - straight @ (straight.T @ logs)) ** 2)  # by one straight line
    worth = np.sum(residuals**2) < left * np.exp(-_PENALTY * np.log(points) / points)
    if not (worth and left > _EXACT and before < min(after, 0)):
        return None
    drawn = fitted[:, None] + _blocks(residuals - residuals.mean(), samples, np.random.default_rng(seed))
    found = _best(bases, drawn)
    ends = [50 * (1 - confidence), 50 * (1 + confidence)]
    drops = [_drop(place, knees[k], bases[k] @ (bases[k].T @ drawn[:, r])) for r, k in enumerate(found)]
    finest = max(knees[1] - knees[0], 1 / len(place)) / 2  # no place is known better than the grid or the log is fine
    low, high = (np.percentile(knees[found], ends) + np.array([-finest, finest])) * tokens[-1]
    at = knees[best] * tokens[-1]
    seen = [row.target_tokens for row in rows]
    return Plateau(
        tokens=round(at),
        step=round(np.interp(at, seen, [row.step for row in rows])),
        epoch=float(np.interp(at, seen, [row.epoch for row in rows])),
        low=round(low),
        high=round(high),
        level=float(loss[tokens >= at].mean()),
        drop=_drop(place, knees[best], fitted),
        drop_low=float(np.percentile(drops, ends[0])),
        drop_high=float(np.percentile(drops, ends[1])),
    )


def _thinned(rows: Sequence[LossRow]) -> tuple[np.ndarray, np.ndarray]:
    """Target tokens and loss, neighbours averaged."""
    parts = np.array_split(np.array([(row.target_tokens, row.loss) for row in rows], float), min(len(rows), _MAX_ROWS))
    return np.array([part.mean(axis=0) for part in parts]).T


def _columns(place: np.ndarray, knee: float) -> np.ndarray:
    return np.stack([np.ones_like(place), place, np.maximum(place - knee, 0)], axis=1)


def _best(bases: Sequence[np.ndarray], curves: np.ndarray) -> np.ndarray:
    """For each column of ``curves`` the basis that leaves the least of it."""
    return np.argmax([np.sum((basis.T @ curves) ** 2, axis=0) for basis in bases], axis=0)


def _independent(residuals: np.ndarray) -> float:
    """As many independent points as these tell as much as: fewer where neighbours are alike (Bartlett 1935)."""
    alike = max(0.0, np.dot(residuals[:-1], residuals[1:]) / max(np.dot(residuals, residuals), _EXACT))
    return max(len(residuals) * (1 - alike) / (1 + alike), np.e)  # where the penalty per point is largest


def _slopes(place: np.ndarray, knee: float, fitted: np.ndarray) -> tuple[float, float]:
    """Of the two lines, before and after the knee."""
    coefficients = np.linalg.lstsq(_columns(place, knee), fitted, rcond=None)[0]
    return float(coefficients[1]), float(coefficients[1] + coefficients[2])


def _drop(place: np.ndarray, knee: float, fitted: np.ndarray) -> float:
    end = fitted[-1]
    return float(np.exp(end - _slopes(place, knee, fitted)[1] * (place[-1] - knee)) - np.exp(end))


def _blocks(residuals: np.ndarray, samples: int, random: np.random.Generator) -> np.ndarray:
    """[points, samples]: runs of neighbouring residuals put together anew."""
    points = len(residuals)
    length = max(1, round(points ** (1 / 3)))
    starts = random.integers(0, points - length + 1, size=(-(-points // length), 1, samples))
    return residuals[(starts + np.arange(length)[None, :, None]).reshape(-1, samples)[:points]]


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
