"""Do the texts depend less on the picture after fine-tuning? Every phase compared with pretraining.

Two-alternative accuracy comes first: unlike a gap in nats, it does not grow with the confidence of the model. The gaps
follow, then the probe of the decoder's hidden state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stages.report.run.figures import Relation, difference, figure, format_change, format_interval, measured, relation
from stages.report.run.load_run import PRETRAIN, Run
from stages.report.run.metric_specs import BY_KEY
from stages.report.statements import RESULTS, Finding, Row, Statement, listing, summarise, unique


class _Measure(NamedTuple):
    """``keys``: the first one that was measured is shown."""

    keys: tuple[str, ...]
    title: str
    column: str
    method: str


_MEASURES = (
    _Measure(
        ("two_alternative",),
        "two-alternative accuracy",
        "two-alternative accuracy, %",
        "Two-alternative accuracy: of the first mentions of kinds that are in the own picture and not in the other, "
        "the share that has the lower loss with the own picture; chance is 50 %. ",
    ),
    _Measure(
        ("swap_gap_object", "swap_gap"),
        "the image-swap gap",
        "image-swap gap, nats",
        "Image-swap gap: loss of the reference text with another picture, of the same background in the built-in "
        "world, minus the loss with its own. ",
    ),
    _Measure(
        ("blind_gap_object", "blind_gap"),
        "the blind gap",
        "blind gap, nats",
        "Blind gap: the same with the mean features of the training pictures instead of another picture. "
        "A gap in nats also grows with the confidence of the model, so that accuracy comes first. ",
    ),
    _Measure(
        ("probe_auc",),
        "the probe of the hidden state",
        "probe, ROC AUC",
        "Probe: which objects are present, predicted by a linear probe from the decoder's hidden state at the last "
        "position of the prompt, mean over the layers; 0.5 is chance.",
    ),
)
_PHRASES: Mapping[Relation, str] = {
    "higher": "higher after",
    "lower": "lower after",
    "unclear": "no clear difference after",
    "undefined": "undefined after",
}


def picture_use(run: Run) -> Finding | None:
    """None where nothing of this was measured, or there is no phase or no pretraining to compare."""
    phases = [name for name, checkpoint in run.checkpoints.items() if checkpoint.phase is not None]
    if not phases or PRETRAIN not in run.checkpoints:
        return None
    statements, compared, method = [], [], ""
    for measure in _MEASURES:
        key = next((key for key in measure.keys if measured(run, key)), None)
        if key is None:
            continue
        rows = _rows(run, phases, key)
        subject = measure.title[0].upper() + measure.title[1:]
        if len(measure.keys) > 1:
            subject += " of object words" if key == measure.keys[0] else " of all words"
        text = f"{subject}, compared with pretraining: {summarise(rows, _PHRASES, 'every phase')}."
        statements.append(Statement(text, (measure.column, "minus pretraining's"), (_pretraining(run, key), *rows)))
        compared.append((measure, rows))
        method += measure.method
    if not statements:
        return None
    return Finding(
        "grounding",
        "Do the texts depend less on the picture after fine-tuning?",
        _headline(compared),
        tuple(statements),
        method.strip(),
    )


def _rows(run: Run, phases: Sequence[str], key: str) -> tuple[Row, ...]:
    metric, rows = BY_KEY[key], []
    for name in phases:
        change = difference(run, name, PRETRAIN, key)
        found = relation(change)
        cells = format_interval(metric, figure(run.checkpoints[name], key)), format_change(metric, change)
        rows.append(Row(name, cells, found, RESULTS[found]))
    return tuple(rows)


def _pretraining(run: Run, key: str) -> Row:
    return Row(PRETRAIN, (format_interval(BY_KEY[key], figure(run.checkpoints[PRETRAIN], key)), ""), "unclear", "")


def _headline(compared: Sequence[tuple[_Measure, Sequence[Row]]]) -> str:
    """The first measure that is defined, then each later one that is lower after some phase."""
    defined = [pair for pair in compared if any(row.relation != "undefined" for row in pair[1])]
    if not defined:
        return "Undefined in this run"
    (first, rows), *others = defined
    parts = [f"{direction} after {after}" for direction in ("lower", "higher") if (after := _after(rows, direction))]
    text = f"No clear difference in this run in {first.title}"
    if parts:
        text = f"In this run, {first.title} is {' and '.join(parts)} than after pretraining"
    losses = [f"{measure.title} is lower after {after}" for measure, rows in others if (after := _after(rows, "lower"))]
    return "; ".join([text, *losses])


def _after(rows: Sequence[Row], direction: Relation) -> str:
    names = unique(row.checkpoint for row in rows if row.relation == direction)
    if names and len(names) == len(rows) > 1:
        return "every phase"
    return listing(names) if names else ""
