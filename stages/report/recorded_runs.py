"""Recorded runs (benchmarks/results/*.json), and what several seeds of one setting say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.common.core.errors import InputError
from stages.report.recorded_metrics import RESULTS

CONFIDENCE = 0.95  # of the intervals over seeds
CURRICULUM, CONTROL, PRETRAIN = "sft-long", "sft-direct", "pretrain"


class RecordedInterval(BaseModel):
    model_config = ConfigDict(extra="ignore")

    value: float | None
    low: float | None
    high: float | None


class RecordedRun(BaseModel):
    """``code``: hash of the pipeline's code, "" where unknown. ``seconds``: of all stages, None where unknown.
    ``target_tokens``: of each checkpoint's chain of phases."""

    model_config = ConfigDict(extra="ignore")

    command: str
    commit: str
    code: str = ""
    date: str
    machine: dict[str, Any]
    seconds: float | None
    seed: int
    params: dict[str, Any]
    scenes: int | None
    target_tokens: dict[str, int]
    checkpoints: dict[str, dict[str, RecordedInterval]]
    metrics_diff: dict[str, dict[str, Any]]

    def value(self, checkpoint: str, metric: str) -> float | None:
        """None where the metric is undefined or was not recorded."""
        interval = self.checkpoints.get(checkpoint, {}).get(metric)
        return None if interval is None or interval.value is None else interval.value


class SeedMean(NamedTuple):
    """A mean over seeds with its t-interval; without an interval for a single seed; all None where undefined."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def relation(self) -> Literal["higher", "lower", "unclear", "undefined"]:
        """Of a difference: whether its interval lies above zero, below it, or includes it."""
        if self.low is None or self.high is None:
            return "undefined"
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "unclear"


NOTHING = SeedMean(None, None, None)


def read_run(path: Path) -> RecordedRun:
    try:
        return RecordedRun.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: record the run with `python -m benchmarks.record {path.stem}`") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}; record the run again") from None


def read_runs(root: Path) -> dict[str, RecordedRun]:
    """{name: run} of all recorded runs."""
    return {path.stem: read_run(path) for path in sorted((root / RESULTS).glob("*.json"))}


def seeds(runs: dict[str, RecordedRun]) -> list[RecordedRun]:
    """The runs named seed-N, by seed.

    Raises InputError where two have one seed, or where they differ in their code or in other parameters than the seed:
    their mean would be a mean of different settings.
    """
    named = {name: run for name, run in runs.items() if name.startswith("seed-")}
    by_seed: dict[int, str] = {}
    first: tuple[str, dict[str, Any], str] | None = None
    for name, run in named.items():
        if run.seed in by_seed:
            raise InputError(f"{RESULTS}/{name}.json and {by_seed[run.seed]}.json both have seed {run.seed}: keep one")
        by_seed[run.seed] = name
        others = {key: value for key, value in run.params.items() if key != "seed"}
        code = run.code or run.commit
        first = first or (name, others, code)
        if others != first[1]:
            raise InputError(
                f"{RESULTS}/{name}.json and {first[0]}.json differ in parameters other than the seed: record them anew"
            )
        if code != first[2]:
            raise InputError(f"{RESULTS}/{name}.json and {first[0]}.json are of different code: record them anew")
    return [named[by_seed[seed]] for seed in sorted(by_seed)]


def seed_mean(values: Sequence[float | None]) -> SeedMean:
    """Mean of one value a seed, with Student's t-interval (n - 1 degrees of freedom).

    Undefined where there is no value or one of them is undefined.
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return NOTHING
    centre = mean(known)
    if len(known) == 1:
        return SeedMean(centre, None, None)
    from scipy.stats import t  # loads for a second, and only tables with several seeds need it

    half = float(t.ppf((1 + CONFIDENCE) / 2, len(known) - 1)) * stdev(known) / math.sqrt(len(known))
    return SeedMean(centre, centre - half, centre + half)


def over_seeds(runs: Sequence[RecordedRun], checkpoint: str, metric: str) -> SeedMean:
    return seed_mean([run.value(checkpoint, metric) for run in runs])


def difference_over_seeds(runs: Sequence[RecordedRun], one: str, other: str, metric: str) -> SeedMean:
    """A metric of one checkpoint minus that of another: the mean of the differences within each seed."""
    differences = []
    for run in runs:
        values = run.value(one, metric), run.value(other, metric)
        differences.append(None if None in values else values[0] - values[1])
    return seed_mean(differences)
