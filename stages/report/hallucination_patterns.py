"""Which objects are wrongly mentioned?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from stages.report.run.figures import Relation, figure, format_interval, paired_difference, relation
from stages.report.run.load_run import Checkpoint, Run
from stages.report.run.metric_specs import BY_KEY
from stages.report.run.records import UNDEFINED, Interval
from stages.report.statements import RESULTS, Finding, Row, Statement, listing, summarise, unique

_PHRASES: Mapping[Relation, str] = {
    "higher": "higher in",
    "lower": "lower in",
    "unclear": "no clear difference in",
    "undefined": "undefined in",
}
_Pair = tuple[Interval, Interval, Relation]


class _Contrast(NamedTuple):
    """Two figures of one checkpoint and how they differ.

    ``headline``: by relation, what the headline states if all arms agree.
    """

    text: str
    columns: tuple[str, str]
    headline: Mapping[Relation, str]
    pair: Callable[[Run, Checkpoint], _Pair]


def hallucination_patterns(run: Run) -> Finding | None:
    """By frequency and by background, for the compared arms or else the last checkpoint.

    None where no arm has a series by frequency.
    """
    ends = unique(f"sft-{phase}" for pair in run.params.sft.comparisons for phase in pair)
    arms = [run.checkpoints[name] for name in ends or list(run.checkpoints)[-1:]]
    if not any(arm.series.get("frequency") for arm in arms):
        return None
    statements, patterns, found = [], [], set()
    for contrast in _CONTRASTS:
        rows = [_row(run, contrast, arm) for arm in arms]
        relations = {row.relation for row in rows}
        found |= relations
        if len(relations) == 1:
            patterns += filter(None, [contrast.headline.get(rows[0].relation)])
        text = f"{contrast.text}: {summarise(rows, _PHRASES, 'each arm')}."
        statements.append(Statement(text, contrast.columns, tuple(rows)))
    if patterns:
        headline = f"In this run, {listing(patterns)}"
    elif found == {"undefined"}:
        headline = "Undefined in this run"
    elif found <= {"unclear", "undefined"}:
        headline = "No clear pattern in this run"
    else:
        headline = "In this run, the arms differ: no pattern holds for all of them"
    return Finding(
        "patterns",
        "Which objects are wrongly mentioned?",
        headline,
        tuple(statements),
        "All figures in %. CHAIR-i: of the objects mentioned, the share that is not in the picture, misnamed and "
        "hallucinated ones together. Two figures differ where the interval of their difference excludes zero.",
    )


def _row(run: Run, contrast: _Contrast, arm: Checkpoint) -> Row:
    first, second, found = contrast.pair(run, arm)
    cells = tuple(format_interval(BY_KEY["chair_i"], interval) for interval in (first, second))
    return Row(arm.name, cells, found, RESULTS[found])


def _ends_of_series(run: Run, checkpoint: Checkpoint, series: str, key: str) -> _Pair:
    """The first and the last point of a series; undefined for a series of a single point."""
    points = checkpoint.series.get(series, ())
    if len(points) < 2:
        return UNDEFINED, UNDEFINED, "undefined"
    first, last = (point.intervals.get(key, UNDEFINED) for point in (points[0], points[-1]))
    names = [f"{series}/{point.at}/{key}" for point in (points[-1], points[0])]
    return first, last, _relation(run, checkpoint, (last, first), names)


def _background(run: Run, checkpoint: Checkpoint) -> _Pair:
    names = ["wrong_on_favoured_background", "wrong_on_favoured_background_expected"]
    observed, expected = (figure(checkpoint, name) for name in names)
    return expected, observed, _relation(run, checkpoint, (observed, expected), names)


def _relation(run: Run, checkpoint: Checkpoint, pair: Sequence[Interval], names: Sequence[str]) -> Relation:
    """Of the first to the second of two figures of one checkpoint; ``names``: the columns of their resamples."""
    columns = [checkpoint.resamples.get(name) for name in names]
    values = [interval.value for interval in pair]
    return relation(paired_difference(values, columns, run.params.evaluate.confidence))


_CONTRASTS = (
    _Contrast(
        "CHAIR-i of rare kinds of object, compared with frequent ones",
        ("frequent kinds", "rare kinds"),
        {
            "higher": "CHAIR-i is higher for rare kinds of object than for frequent ones",
            "lower": "CHAIR-i is lower for rare kinds of object than for frequent ones",
        },
        lambda run, checkpoint: _ends_of_series(run, checkpoint, "frequency", "chair_i"),
    ),
    _Contrast(
        "Share of the wrong mentions whose kind usually goes with the background, compared with the share expected "
        "from frequency alone",
        ("expected", "observed"),
        {
            "higher": "wrong mentions fit the background more often than their frequency explains",
            "lower": "wrong mentions fit the background less often than their frequency explains",
        },
        _background,
    ),
)
