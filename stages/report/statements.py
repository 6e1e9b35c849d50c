"""Statements of the page, each with the figures that it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from stages.report.run.figures import Relation

_SYMBOLS: Mapping[Relation, str] = {"higher": "▲", "lower": "▼", "unclear": "≈", "undefined": "–"}
RESULTS: Mapping[Relation, str] = {key: key for key in ("higher", "lower", "undefined")} | {
    "unclear": "no clear difference"
}


class Row(NamedTuple):
    """The figures of one checkpoint; ``result``: what they show, in one to three words."""

    checkpoint: str
    cells: tuple[str, ...]
    relation: Relation
    result: str

    @property
    def symbol(self) -> str:
        return _SYMBOLS[self.relation]


class Statement(NamedTuple):
    """``columns``: titles of the rows' cells."""

    text: str
    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()


class Finding(NamedTuple):
    """A question and what was measured about it in this run. ``method``: how to read the figures."""

    key: str
    question: str
    headline: str
    statements: tuple[Statement, ...]
    method: str


def listing(items: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def unique(items: Iterable[Any]) -> list[Any]:
    """Without repetitions, in order of first appearance."""
    return list(dict.fromkeys(items))


def summarise(rows: Iterable[Row], phrases: Mapping[Relation, str], every: str) -> str:
    """Checkpoints grouped by result: "larger after sft-long; no clear difference after sft-short".

    ``every`` stands for the checkpoints where there are several and all have the same result.
    """
    names: dict[Relation, list[str]] = {}
    for row in rows:
        names.setdefault(row.relation, []).append(row.checkpoint)
    if len(names) == 1 and len(next(iter(names.values()))) > 1:
        return f"{phrases[next(iter(names))]} {every}"
    order: tuple[Relation, ...] = ("higher", "lower", "unclear", "undefined")
    return "; ".join(f"{phrases[key]} {listing(unique(names[key]))}" for key in order if key in names)


def readable(kind: str) -> str:
    """The id of a kind as words: ice_cream as ice cream."""
    return kind.replace("_", " ")
