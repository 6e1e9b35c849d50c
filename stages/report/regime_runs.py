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
from stages.report.notes_texts import NOTES_TEXTS
from stages.report.recorded_runs import SeedMean, seed_mean
from stages.report.run.metric_specs import BY_KEY, CAPTION_PREFIX, FAR_FIRST_PREFIX, signed
from stages.report.run.regime import CONDITIONS, GROUNDED_CONDITIONS, Condition, Role, Value

RESULTS = Path("benchmarks/results/regime")
DEFAULT = "ungrounded-2"  # the attempt whose values became the defaults

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
        if _made_of(record) != _made_of(first):
            raise InputError(
                f"{RESULTS / name}: seeds {first['seed']} and {record['seed']} are of different code, settings or "
                "phases; record them under different names"
            )
    return sorted(records, key=lambda record: record["seed"])


def _made_of(record: Record) -> tuple[str, Mapping[str, Any], set[str]]:
    return record["code"], record["params"], set(record["checkpoints"])


def differences(records: Sequence[Record], condition: Condition) -> list[float | None]:
    """The larger value of the condition minus the smaller one, for each seed; None where one is undefined."""
    return [_difference(record, condition.larger, condition.smaller) for record in records]


def _difference(record: Record, larger: Value, smaller: Value) -> float | None:
    values = [value if isinstance(value, float) else metric_of(record, *value) for value in (larger, smaller)]
    return None if None in values else values[0] - values[1]


def metric_of(record: Record, role: Role, metric: str) -> float | None:
    """None where it is undefined."""
    return record["checkpoints"][role]["intervals"].get(metric, {}).get("value")


def conditions_of(record: Record) -> tuple[Condition, ...]:
    """By which conditions the checkpoints of the record are judged."""
    return CONDITIONS if "direct" in record["checkpoints"] else GROUNDED_CONDITIONS


def holds(found: SeedMean) -> bool:
    return found.low is not None and found.low > 0


def regime_table(root: Path, conditions: tuple[Condition, ...] = CONDITIONS) -> list[list[str]]:
    """Rows of a table: each attempt that is judged by ``conditions``, with the parameters that are not the same in all
    of these, and every condition's mean difference and t-interval; bold where it holds."""
    rows = [["name", "parameters", "seeds", *(condition.key for condition in conditions)]]
    recorded = {name: read_records(root, name) for name in names(root)}
    attempts = {name: records for name, records in recorded.items() if conditions_of(records[0]) == conditions}
    params = [flat(records[0]["params"]) for records in attempts.values()]
    keys = dict.fromkeys(key for each in params for key in each)
    varied = [key for key in keys if any(key not in each or each[key] != params[0].get(key) for each in params)]
    for (name, records), values in zip(attempts.items(), params, strict=True):
        settings = ", ".join(f"`{key}={values[key]}`" for key in varied if key in values) or "–"
        seeds = ", ".join(str(record["seed"]) for record in records)
        cells = []
        for condition in conditions:
            found = seed_mean(differences(records, condition))
            text = "–" if found.value is None else signed(found.value, 2)
            if found.low is not None:
                text += f" [{signed(found.low, 2)}, {signed(found.high, 2)}]"
            cells.append(f"**{text}**" if holds(found) else text)
        rows.append([name, settings, seeds, *cells])
    return rows


# Of texts, in the order of the columns: "" where it was not measured or has no meaning.
_WHOLE = ("chair_i", "precision", "unsupported", "recall", "length", "two_alternative")
_OPENING = ("", "chair_i_opening", "unsupported_opening", "recall_opening", "length_opening")
_NEAR_FIRST = (*_WHOLE, "chair_i_rise")
# Two-alternative accuracy is that of descriptions from near to far: captions name near things only.
_CAPTION, _FAR_FIRST = (
    tuple("" if key == "two_alternative" else prefix + key for key in keys)
    for prefix, keys in ((CAPTION_PREFIX, _WHOLE), (FAR_FIRST_PREFIX, _NEAR_FIRST))
)
_COLUMNS = (
    "CHAIR-i, %",
    "of first mentions, %",
    "absent kinds a text",
    "recall, %",
    "characters",
    "two-alternative accuracy, all things, %",
    "rise of CHAIR-i of first mentions, points",
)
TEXTS: tuple[tuple[str, tuple[Role, ...], tuple[str, ...]], ...] = (
    ("pretraining, short prompt", ("pretrain",), _CAPTION),
    ("pretraining, long prompt", ("pretrain",), _WHOLE),
    ("pretraining, long prompt, first two sentences", ("pretrain",), _OPENING),
    ("direct, long prompt", ("direct",), _NEAR_FIRST),
    ("direct, long prompt, first two sentences", ("direct",), _OPENING),
    ("direct, long prompt, far things first", ("direct",), _FAR_FIRST),
    ("direct minus pretraining, long prompt", ("direct", "pretrain"), _WHOLE),
    ("direct minus pretraining, long prompt, first two sentences", ("direct", "pretrain"), _OPENING),
)


def figures_table(root: Path) -> list[list[str]]:
    """Rows of a table: the notes' texts, and beside them those of the attempt DEFAULT as means over its seeds with
    t-intervals. Empty without records."""
    if DEFAULT not in names(root):
        return []
    records = read_records(root, DEFAULT)
    rows = [["texts", *_COLUMNS]]
    for text in NOTES_TEXTS:
        rows.append([f"notes: {text.model}", text.chair_i, "", text.unsupported, text.recall, text.length, "", ""])
    for title, roles, keys in TEXTS:
        cells = [_cell(records, roles, key) if key else "" for key in keys]
        rows.append([f"ours: {title}", *cells, *[""] * (len(_COLUMNS) - len(cells))])
    return rows


def _cell(records: Sequence[Record], roles: tuple[Role, ...], key: str) -> str:
    """A metric of one checkpoint, or of the first minus the second. In place of precision, the share that is absent."""
    values: list[float | None] = []
    for record in records:
        each = [metric_of(record, role, key) for role in roles]
        if key.endswith("precision"):
            each = [None if value is None else 1 - value for value in each]
        values.append(None if None in each else each[0] - sum(each[1:]))
    metric = BY_KEY[key.removeprefix(CAPTION_PREFIX).removeprefix(FAR_FIRST_PREFIX)]
    show = metric.show if len(roles) == 1 else metric.change
    found = seed_mean(values)
    interval = "" if found.low is None else f" [{show(found.low)}, {show(found.high)}]"
    return show(found.value) + interval
