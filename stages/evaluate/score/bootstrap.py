"""Intervals: every figure with what resampling the test scenes makes of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Sums = defaultdict[str, np.ndarray]  # a name that nothing was added to: zeros
Metric = Callable[[Sums], np.ndarray]


class Estimate(NamedTuple):
    """A figure and its percentile interval; NaN where it is not defined.

    ``resampled`` [R] is the figure in each resample, NaN where it is not defined there; empty: there is no interval.
    """

    value: float
    low: float
    high: float
    resampled: np.ndarray

    @classmethod
    def alone(cls, value: float) -> Estimate:
        """Of a figure that is no mean over scenes, so that resampling them says nothing about it."""
        return cls(value, math.nan, math.nan, np.zeros(0))

    def row(self) -> dict[str, float | None]:
        """As JSON: not-a-number becomes null."""
        return {
            name: None if math.isnan(value) else round(value, 5)
            for name, value in (("value", self.value), ("low", self.low), ("high", self.high))
        }


class Bootstrap:
    """Resamples of ``scenes`` scenes, drawn with replacement (Efron 1979).

    The draws depend on the arguments alone, so two checkpoints that answered for the same scenes are resampled alike,
    and the difference of their ``resampled`` figures is a paired bootstrap.
    """

    def __init__(self, scenes: int, samples: int, confidence: float, seed: int) -> None:
        self.scenes, self._samples = scenes, samples
        self._tails = [50 * (1 - confidence), 50 * (1 + confidence)]
        draw = np.random.default_rng(seed).multinomial
        self.weights = draw(scenes, np.full(scenes, 1 / scenes), size=samples) if scenes else np.zeros((samples, 0))

    def of(self, figure: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """A figure as a function of how often each scene counts: [R, scenes] -> [R]."""
        resampled = figure(self.weights)
        known = resampled[~np.isnan(resampled)]
        low, high = np.percentile(known, self._tails) if len(known) else (math.nan, math.nan)
        value = float(figure(np.ones((1, self.scenes)))[0])
        return Estimate(value, float(low), float(high), resampled)

    def of_sums(self, rows: Sequence[Mapping[str, float]], metrics: Mapping[str, Metric]) -> dict[str, Estimate]:
        """Figures of sums over scenes; ``rows``: what each scene adds to them, nothing where a name is missing."""
        if len(rows) != self.scenes:
            raise ValueError(f"{len(rows)} rows for {self.scenes} scenes")
        columns = sorted({name for row in rows for name in row})
        table = np.array([[float(row.get(name, 0)) for name in columns] for row in rows]).reshape(
            len(rows), len(columns)
        )

        def sums(weights: np.ndarray) -> Sums:
            return defaultdict(lambda: np.zeros(len(weights)), zip(columns, (weights @ table).T, strict=True))

        resampled, whole = sums(self.weights), sums(np.ones((1, self.scenes)))
        return {
            name: self.of(lambda weights, metric=metric: metric(resampled if weights is self.weights else whole))
            for name, metric in metrics.items()
        }


def ratio(part: str, whole: str) -> Metric:
    return lambda sums: divide(sums[part], sums[whole])


def divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def sum_by_scene(counted: Iterable[tuple[str, Mapping[str, float]]], scenes: Sequence[str]) -> list[dict[str, float]]:
    """Counts summed per scene, a row for each of ``scenes``: a scene's questions are not independent, so scenes are
    what is resampled."""
    rows: dict[str, dict[str, float]] = {scene: {} for scene in scenes}
    for scene, counts in counted:
        row = rows[scene]
        for name, value in counts.items():
            row[name] = row.get(name, 0.0) + value
    return list(rows.values())
