"""What each knob of a regime buys: runs of all combinations, each knob at its default or at another value.

``python -m benchmarks.regime knobs`` writes them; the table in docs/regimes.md is made from them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from stages.common.core.errors import InputError
from stages.report.regime_runs import RESULTS, Record, flat, metric_of, read_records
from stages.report.run.metric_specs import signed
from stages.report.run.regime import Role

FOLDER = "knobs"  # in RESULTS
# In this order, combinations that share the most stages follow each other: other texts change every stage, another
# decoder the fewest.
KNOBS = {"clean": "data.unsupported=0", "no-region": "vision.region_weight=0", "blind": "language.grounding=blind"}

Combination = frozenset[str]  # the knobs that are not at their default


class Column(NamedTuple):
    title: str
    role: Role
    metric: str
    decimals: int = 2


COLUMNS = (
    Column("rise", "direct", "chair_i_rise"),
    Column("rise in references", "direct", "reference_chair_i_rise"),
    Column("absent kinds, text", "direct", "unsupported"),
    Column("absent kinds, caption", "pretrain", "caption_unsupported"),
    Column("precision, text", "direct", "precision"),
    Column("precision, caption", "pretrain", "caption_precision"),
    Column("two-alternative, near", "direct", "two_alternative_near"),
    Column("recall, near", "direct", "recall_near"),
    Column("characters, caption", "pretrain", "caption_length", 0),
)


def combinations() -> list[Combination]:
    """All of them, the default first."""
    return [
        frozenset(itertools.compress(KNOBS, chosen)) for chosen in itertools.product((False, True), repeat=len(KNOBS))
    ]


def run_name(combination: Combination) -> str:
    return f"{FOLDER}/{'+'.join(knob for knob in KNOBS if knob in combination) or 'default'}"


def knob_settings(combination: Combination) -> list[str]:
    return [setting for knob, setting in KNOBS.items() if knob in combination]


def knob_table(root: Path) -> list[list[str]]:
    """Rows of a table: the mean over seeds of each recorded combination; then each knob's effect, see _effect. Empty
    without records."""
    recorded = {
        combination: read_records(root, run_name(combination))
        for combination in combinations()
        if any((root / RESULTS / run_name(combination)).glob("seed-*.json"))
    }
    if not recorded:
        return []
    _check(recorded)
    rows = [["", "seeds", *(column.title for column in COLUMNS)]]
    for combination, records in recorded.items():
        seeds = ", ".join(str(record["seed"]) for record in records)
        cells = []
        for column in COLUMNS:
            values = [metric_of(record, column.role, column.metric) for record in records]
            cells.append("–" if None in values else f"{mean(values):.{column.decimals}f}".replace("-", "−"))
        rows.append([Path(run_name(combination)).name, seeds, *cells])
    by_seed = {(each, record["seed"]): record for each, records in recorded.items() for record in records}
    for knob in KNOBS:
        pairs = [
            (by_seed[combination, seed], by_seed[combination | {knob}, seed])
            for combination, seed in by_seed
            if knob not in combination and (combination | {knob}, seed) in by_seed
        ]
        rows.append([f"effect of {knob}", f"pairs: {len(pairs)}", *(_effect(pairs, column) for column in COLUMNS)])
    return rows


def _check(recorded: Mapping[Combination, Sequence[Record]]) -> None:
    """Raises InputError where combinations differ in anything but the knobs."""
    changed = {setting.partition("=")[0] for setting in KNOBS.values()}
    seen = {}
    for combination, (record, *_) in recorded.items():
        others = {key: value for key, value in flat(record["params"]).items() if key not in changed}
        seen[run_name(combination)] = record["code"], others
    first, *rest = seen
    for name in rest:
        if seen[name] != seen[first]:
            raise InputError(f"{RESULTS}: {first} and {name} are of different code or settings: run both again")


def _effect(pairs: Sequence[tuple[Record, Record]], column: Column) -> str:
    """Mean change of a metric, with the least and the greatest, over pairs of runs of one seed that differ in one knob
    alone. Pairs in which it is undefined do not count, and the number of those that do is given."""
    values = [tuple(metric_of(each, column.role, column.metric) for each in pair) for pair in pairs]
    changes = [changed - without for without, changed in values if None not in (without, changed)]
    if not changes:
        return "–"
    average, least, most = (signed(value, column.decimals) for value in (mean(changes), min(changes), max(changes)))
    counted = "" if len(changes) == len(pairs) else f", {len(changes)} of {len(pairs)} pairs"
    return f"{average} ({least} … {most}{counted})"
