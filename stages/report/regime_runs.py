"""Recorded runs of the two checkpoints that decide whether a regime hallucinates as the notes' did, over seeds.

``python -m benchmarks.regime run NAME`` writes them; the table in docs/regimes.md is made from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stages.common.core.errors import InputError
from stages.report.recorded_runs import SeedMean, seed_mean
from stages.report.run.metric_specs import signed
from stages.report.run.regime import CONDITIONS, Condition

RESULTS = Path("benchmarks/results/regime")

Record = Mapping[str, Any]


def common_params(root: Path) -> dict[str, Any]:
    """All parameters but those in which the seeds of one attempt differ, and W&B's."""
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    return {name: value for name, value in params.items() if name not in ("seed", "wandb")}


def flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"data.kinds": 32, ...}"""
    found = {}
    for key, value in params.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def names(root: Path) -> list[str]:
    """The recorded attempts."""
    return sorted({path.parent.name for path in (root / RESULTS).glob("*/seed-*.json")})


def read_records(root: Path, name: str) -> list[Record]:
    """The finished seeds of ``name``. Raises InputError where there are none, or
    where they are not of the same code and settings."""
    paths = (root / RESULTS / name).glob("seed-*.json")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    if not records:
        raise InputError(
            f"{RESULTS / name} has no seed-*.json: run `python -m benchmarks.regime run {name} --seeds 1,2,3,4,5` first"
        )
    first = records[0]
    for record in records:
        if (record["code"], record["params"]) != (first["code"], first["params"]):
            raise InputError(
                f"{RESULTS / name}: seeds {first['seed']} and {record['seed']} are of different code or settings; "
                "record them under different names"
            )
    return sorted(records, key=lambda record: record["seed"])


def differences(records: Sequence[Record], condition: Condition) -> list[float | None]:
    """The larger value of the condition minus the smaller one, for each seed; None where one is undefined."""
    return [_difference(record, condition) for record in records]


def _difference(record: Record, condition: Condition) -> float | None:
    values = []
    for value in (condition.larger, condition.smaller):
        if isinstance(value, tuple):
            role, metric = value
            value = record["checkpoints"][role]["intervals"].get(metric, {}).get("value")
        values.append(value)
    return None if None in values else values[0] - values[1]


def holds(found: SeedMean) -> bool:
    return found.low is not None and found.low > 0


def regime_table(root: Path) -> list[list[str]]:
    """Rows of a table: an attempt each, with the parameters that are not the same in all attempts, and every
    condition's mean difference and t-interval; bold where it holds."""
    rows = [["name", "parameters", "seeds", *(condition.key for condition in CONDITIONS)]]
    attempts = {name: read_records(root, name) for name in names(root)}
    params = [flat(records[0]["params"]) for records in attempts.values()]
    keys = dict.fromkeys(key for each in params for key in each)
    varied = [key for key in keys if any(key not in each or each[key] != params[0].get(key) for each in params)]
    for (name, records), values in zip(attempts.items(), params, strict=True):
        settings = ", ".join(f"`{key}={values[key]}`" for key in varied if key in values) or "–"
        seeds = ", ".join(str(record["seed"]) for record in records)
        cells = []
        for condition in CONDITIONS:
            found = seed_mean(differences(records, condition))
            text = "–" if found.value is None else signed(found.value, 2)
            if found.low is not None:
                text += f" [{signed(found.low, 2)}, {signed(found.high, 2)}]"
            cells.append(f"**{text}**" if holds(found) else text)
        rows.append([name, settings, seeds, *cells])
    return rows
