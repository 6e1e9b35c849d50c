"""Bootstrap intervals: metrics recomputed on test scenes drawn with replacement."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Sums = defaultdict[str, np.ndarray]  # a name that was never added to has zeros
Metric = Callable[[Sums], np.ndarray]


class Estimate(NamedTuple):
    """The value of a metric and its percentile interval; NaN where undefined.

    ``resampled`` [R] is the metric in each resample, NaN where it is undefined there; empty if there is no interval.
    """

    value: float
    low: float
    high: float
    resampled: np.ndarray

    @classmethod
    def without_interval(cls, value: float) -> Estimate:
        """For a metric that is not a mean over scenes, such as corpus BLEU."""
        return cls(value, math.nan, math.nan, np.zeros(0))

    def row(self) -> dict[str, float | None]:
        """For JSON: NaN becomes null."""
        return {
            name: None if math.isnan(value) else round(value, 5)
            for name, value in (("value", self.value), ("low", self.low), ("high", self.high))
        }


class Bootstrap:
    """Resamples of ``scenes`` scenes, drawn with replacement (Efron 1979).

    The draws depend on the arguments alone, so two checkpoints that answered for the same scenes get the same
    resamples, and the difference of their ``resampled`` values is a paired bootstrap.
    """

    def __init__(self, scenes: int, samples: int, confidence: float, seed: int) -> None:
        self.scenes = scenes
        self._tails = [50 * (1 - confidence), 50 * (1 + confidence)]
        draw = np.random.default_rng(seed).multinomial
        drawn = draw(scenes, np.full(scenes, 1 / scenes), size=samples) if scenes else np.zeros((samples, 0))
        self.weights = drawn.astype(float)  # [R, scenes]: how often each scene was drawn

    def interval(self, value: float, resampled: np.ndarray) -> Estimate:
        """The percentile interval of ``value``; ``resampled`` [R] is the same metric in each resample."""
        defined = resampled[~np.isnan(resampled)]
        low, high = np.percentile(defined, self._tails) if len(defined) else (math.nan, math.nan)
        return Estimate(value, float(low), float(high), resampled)

    def of_sums(self, rows: Sequence[Mapping[str, float]], metrics: Mapping[str, Metric]) -> dict[str, Estimate]:
        """Metrics of sums over scenes. ``rows`` holds what each scene adds to them; a missing name adds zero."""
        if len(rows) != self.scenes:
            raise ValueError(f"{len(rows)} rows for {self.scenes} scenes")
        columns = sorted({name for row in rows for name in row})
        table = np.array([[float(row.get(name, 0)) for name in columns] for row in rows]).reshape(
            len(rows), len(columns)
        )

        def sums(weights: np.ndarray) -> Sums:
            return defaultdict(lambda: np.zeros(len(weights)), zip(columns, (weights @ table).T, strict=True))

        resampled, total = sums(self.weights), sums(np.ones((1, self.scenes)))
        return {name: self.interval(float(metric(total)[0]), metric(resampled)) for name, metric in metrics.items()}


def ratio(numerator: str, denominator: str) -> Metric:
    """The ratio of two sums; NaN where the denominator is 0."""
    return lambda sums: divide(sums[numerator], sums[denominator])


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where the denominator is not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)


def sum_by_scene(counted: Iterable[tuple[str, Mapping[str, float]]], scenes: Sequence[str]) -> list[dict[str, float]]:
    """Counts summed per scene, a row for each of ``scenes``.

    The questions of a scene are not independent, so scenes are what is resampled.
    """
    rows: dict[str, dict[str, float]] = {scene: {} for scene in scenes}
    for scene, counts in counted:
        row = rows[scene]
        for name, value in counts.items():
            row[name] = row.get(name, 0.0) + value
    return list(rows.values())
