"""What a run says, in words: every sentence is chosen by the figures that stand beside it.

Nothing here knows what to hope for. A difference is called one only where its interval leaves out zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from stages.common.config.params import Params
from stages.report.figures import Relation, figure, measured, relation, shown, shown_change
from stages.report.load_run import PRETRAIN, UNDEFINED, Checkpoint, Interval, Run, difference, paired
from stages.report.metric_specs import BY_KEY, Metric

_NATS = Metric("", "", "lower", "", unit="nats", decimals=3)
_SIGNS: Mapping[Relation, str] = {"higher": "▲", "lower": "▼", "unclear": "≈", "undefined": "–"}
_PLAIN: Mapping[Relation, str] = {key: key for key in ("higher", "lower", "undefined")} | {
    "unclear": "no clear difference"
}


class Row(NamedTuple):
    """The figures of one checkpoint beside a claim; ``verdict``: what they say, in a word or two."""

    checkpoint: str
    cells: tuple[str, ...]
    relation: Relation
    verdict: str

    @property
    def sign(self) -> str:
        return _SIGNS[self.relation]


class Statement(NamedTuple):
    """``head``: titles of the rows' cells."""

    claim: str
    head: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()


class Finding(NamedTuple):
    """A question and what this run says to it. ``method``: how to read the figures."""

    key: str
    question: str
    headline: str
    statements: tuple[Statement, ...]
    method: str


def listing(words: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def spread(rows: Iterable[Row], phrases: Mapping[Relation, str], every: str) -> str:
    """Which rows say what: "larger after sft-long, no clear difference after sft-short"; ``every``: if all agree."""
    names: dict[Relation, list[str]] = {}
    for row in rows:
        names.setdefault(row.relation, []).append(row.checkpoint)
    if len(names) == 1 and len(next(iter(names.values()))) > 1:
        return f"{phrases[next(iter(names))]} {every}"
    order: tuple[Relation, ...] = ("higher", "lower", "unclear", "undefined")
    return "; ".join(f"{phrases[key]} {listing(_unique(names[key]))}" for key in order if key in names)


def _unique(names: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(names))


def findings(run: Run) -> list[Finding]:
    """All but the comparison of the arms, in the page's order; without those that nothing was measured for."""
    return [finding for finding in (grounding(run), training_loss(run), invention(run)) if finding is not None]


# Did fine-tuning destroy the image part?


def grounding(run: Run) -> Finding | None:
    """Every phase against pretraining: what its words take from the picture, and what its image tokens hold."""
    phases = [name for name, checkpoint in run.checkpoints.items() if checkpoint.phase is not None]
    gap = next((key for key in ("swap_gap_object", "swap_gap") if measured(run, key)), None)
    if gap is None or not phases or PRETRAIN not in run.checkpoints:
        return None
    words = "object words" if gap == "swap_gap_object" else "all words"
    rows = _beside_pretraining(run, phases, gap)
    phrases = {
        "higher": "larger after",
        "lower": "smaller after",
        "unclear": "no clear difference after",
        "undefined": "undefined after",
    }
    statements = [
        Statement(
            f"Image-swap gap on {words}, beside pretraining's: {spread(rows, phrases, 'every phase')}.",
            ("gap, nats", "minus pretraining's"),
            (_alone(run, gap), *rows),
        )
    ]
    probes: tuple[Row, ...] = ()
    if measured(run, "probe_auc"):
        probes = _beside_pretraining(run, phases, "probe_auc")
        phrases = phrases | {"higher": "more after", "lower": "less after"}
        statements.append(
            Statement(
                "What a linear probe reads off the image tokens, beside pretraining's: "
                f"{spread(probes, phrases, 'every phase')}.",
                ("area under the curve", "minus pretraining's"),
                (_alone(run, "probe_auc"), *probes),
            )
        )
    return Finding(
        "grounding",
        "Did fine-tuning destroy what pretraining had learnt of the picture?",
        _grounding_headline(rows, probes),
        tuple(statements),
        "Image-swap gap: how much the loss of the reference text rises when another picture takes the place of its "
        "own; 0 where the picture does not matter."
        + (" The probe tells present from absent objects; 0.5 is chance." if probes else ""),
    )


def _beside_pretraining(run: Run, phases: Sequence[str], key: str) -> tuple[Row, ...]:
    metric = BY_KEY[key]
    rows = []
    for name in phases:
        change = difference(run, name, PRETRAIN, key)
        found = relation(change)
        cells = shown(metric, figure(run.checkpoints[name], key)), shown_change(metric, change)
        rows.append(Row(name, cells, found, _PLAIN[found]))
    return tuple(rows)


def _alone(run: Run, key: str) -> Row:
    """Pretraining itself, which the others stand beside."""
    return Row(PRETRAIN, (shown(BY_KEY[key], figure(run.checkpoints[PRETRAIN], key)), ""), "unclear", "")


def _grounding_headline(gaps: Sequence[Row], probes: Sequence[Row]) -> str:
    relations = {row.relation for row in gaps}
    less = _unique(row.checkpoint for row in gaps if row.relation == "lower")
    dimmer = _unique(row.checkpoint for row in probes if row.relation == "lower")
    if relations == {"undefined"}:
        return "Open: the figures are undefined"
    if relations == {"lower"}:
        return "Yes: after fine-tuning the words depend less on the picture than before"
    if less or dimmer:
        parts = [f"after {listing(less)} the words depend less on the picture than before"] if less else []
        parts += [f"after {listing(dimmer)} the image tokens tell less of what is there"] if dimmer else []
        return f"In part: {', and '.join(parts)}"
    if relations == {"higher"}:
        return "No: after fine-tuning the words depend more on the picture than before"
    if "higher" in relations:
        return "No sign of it: after no phase do the words depend clearly less on the picture than before"
    return "No clear difference in how much the words depend on the picture"


# What does the loss tell?


def training_loss(run: Run) -> Finding | None:
    """How the loss changes where an epoch ends, with and without a new order of samples."""
    if not run.diagnostics:
        return None
    confidence = run.params.evaluate.confidence
    rows = _jump_rows(run)
    said = spread(rows, _JUMPS, "every run")
    jump = (
        Statement(
            f"Where one epoch ends and the next begins, the loss {said}.{_twin_words(run)}{_sorted_file(run, rows)}",
            ("order of samples", "change there, nats", "inside epochs", "places as high"),
            tuple(rows),
        )
        if rows
        else Statement("No run has two epochs with points enough to tell what the loss does between them.")
    )
    windows = sorted({jump.window for diagnostics in run.diagnostics.values() for jump in diagnostics.jumps})
    method = ""
    if windows:
        points = " to ".join(map(str, _unique((windows[0], windows[-1]))))
        method = (
            f"Change: mean of the {points} logged points after the boundary minus that before; beside it the same "
            "difference at places inside epochs, mean ± standard deviation. It counts where it is beyond "
            f"{100 * confidence:g} % of them."
        )
    return Finding(
        "training",
        "Does the loss jump where an epoch ends?",
        _loss_headline(run, rows),
        (jump,),
        method,
    )


_JUMPS: Mapping[Relation, str] = {
    "higher": "jumps up in",
    "lower": "falls in",
    "unclear": "does nothing unusual in",
    "undefined": "is undefined in",
}


def jump_relation(share: float, confidence: float) -> Relation:
    """Of a change whose like or more was seen at this ``share`` of places inside epochs."""
    tail = (1 - confidence) / 2
    return "higher" if share <= tail else "lower" if share >= 1 - tail else "unclear"


def _jump_rows(run: Run) -> list[Row]:
    rows = []
    for name, diagnostics in run.diagnostics.items():
        for jump in diagnostics.jumps:
            found = jump_relation(jump.share, run.params.evaluate.confidence)
            cells = (
                "shuffled" if diagnostics.shuffle else "of the file",
                _NATS.change(jump.size),
                f"{_NATS.change(jump.usual)} ± {_NATS.show(jump.noise)}",
                f"{100 * jump.share:.0f} % of {jump.places}",
            )
            verdict = {"higher": "jumps up", "lower": "falls", "unclear": "nothing unusual"}[found]
            rows.append(Row(name, cells, found, verdict))
    return rows


def twins(params: Params) -> list[tuple[str, str]]:
    """(checkpoint in a new order each epoch, checkpoint in the order of the file) of phases alike in all else."""
    sft = params.sft
    return [
        (f"sft-{one}", f"sft-{other}")
        for one, phase in sft.phases.items()
        for other, like in sft.phases.items()
        if sft.shuffle_of(one) and not sft.shuffle_of(other)
        if phase.model_copy(update={"shuffle": None}) == like.model_copy(update={"shuffle": None})
    ]


def _twin_words(run: Run) -> str:
    pairs = [f"{other} has the samples of {one}, in the order of the file" for one, other in twins(run.params)]
    return f" {'; '.join(pairs)}." if pairs else ""


def _sorted_file(run: Run, rows: Sequence[Row]) -> str:
    """Where the jump of an unshuffled phase of the built-in world comes from."""
    unshuffled = _unique(row.checkpoint for row in rows if not run.diagnostics[row.checkpoint].shuffle)
    if not unshuffled or run.params.data.source != "world":
        return ""
    return (
        " The samples of the built-in world are sorted by kind of text: descriptions first, questions last. "
        f"Without shuffling ({listing(unshuffled)}), an epoch ends with questions and the next one begins with "
        "descriptions, so that the loss before and after this place is that of two kinds of text. A jump there shows "
        "what a sorted file does; it is no measurement of MiniMind-V's own data."
    )


def _loss_headline(run: Run, rows: Sequence[Row]) -> str:
    fair = {name for pair in twins(run.params) for name in pair}
    counted = [row for row in rows if row.checkpoint in fair] or rows
    up = {True: None, False: None}
    for shuffled in up:
        own = [row.relation == "higher" for row in counted if run.diagnostics[row.checkpoint].shuffle is shuffled]
        up[shuffled] = any(own) if own else None
    return {
        (None, None): "Open: no run has two epochs with points enough",
        (True, None): "The loss jumps up where an epoch ends, in a new order of samples",
        (None, True): "The loss jumps up where an epoch ends, in the order of the file",
        (False, None): "No jump up where an epoch ends, in a new order of samples",
        (None, False): "No jump up where an epoch ends, in the order of the file",
        (True, True): "The loss jumps up where an epoch ends, with and without a new order of samples",
        (False, True): "The loss jumps up where an epoch ends in the order of the file, and not in a new order",
        (True, False): "The loss jumps up where an epoch ends in a new order, and not in the order of the file",
        (False, False): "No jump up where an epoch ends, in whichever order of samples",
    }[up[True], up[False]]


# What is hallucinated, and where?

_INVENTED: Mapping[Relation, str] = {
    "higher": "more is hallucinated in",
    "lower": "less is hallucinated in",
    "unclear": "no clear difference in",
    "undefined": "undefined in",
}
_Pair = tuple[Interval, Interval, Relation]


class _Contrast(NamedTuple):
    """Two figures of a checkpoint, and what the second says beside the first. ``where``: of each relation that is
    clear in all arms, for the headline."""

    claim: str
    head: tuple[str, str]
    where: Mapping[Relation, str]
    pair: Callable[[Run, Checkpoint], _Pair]


def invention(run: Run) -> Finding | None:
    """In which part of a text, of which kinds, on whose background: of the compared checkpoints, or of the last."""
    ends = _unique(f"sft-{phase}" for pair in run.params.sft.comparisons for phase in pair)
    arms = [run.checkpoints[name] for name in ends or list(run.checkpoints)[-1:]]
    if not any(arm.series for arm in arms):
        return None
    statements, where, found = [], [], set()
    for contrast in _CONTRASTS:
        rows = []
        for arm in arms:
            first, second, known = contrast.pair(run, arm)
            cells = tuple(shown(BY_KEY["chair_i"], interval) for interval in (first, second))
            rows.append(Row(arm.name, cells, known, _PLAIN[known]))
        relations = {row.relation for row in rows}
        found |= relations
        if len(relations) == 1:
            where += filter(None, [contrast.where.get(rows[0].relation)])
        said = spread(rows, _INVENTED, "each arm")
        statements.append(Statement(f"{contrast.claim}: {said}.", contrast.head, tuple(rows)))
    if where:
        headline = f"More is hallucinated {listing(where)}"
    elif found == {"undefined"}:
        headline = "Open: the figures are undefined"
    elif found <= {"unclear", "undefined"}:
        headline = "No clear pattern in this run"
    else:
        headline = "The arms differ: no pattern holds for each of them"
    return Finding(
        "invention",
        "What kind of objects are hallucinated, and where in the text?",
        headline,
        tuple(statements),
        "%: of the objects mentioned there, those not in the picture (CHAIR-i); of the background, a share of the "
        "hallucinated ones. They count as different where the interval of their difference leaves out zero.",
    )


def _places(run: Run, checkpoint: Checkpoint, series: str, key: str) -> _Pair:
    """The first and the last place of a series; one that has a single place has nothing to compare."""
    places = checkpoint.series.get(series, ())
    if len(places) < 2:
        return UNDEFINED, UNDEFINED, "undefined"
    first, last = (place.intervals.get(key, UNDEFINED) for place in (places[0], places[-1]))
    names = [f"{series}/{place.at}/{key}" for place in (places[-1], places[0])]
    return first, last, _within(run, checkpoint, (last, first), names)


def _background(run: Run, checkpoint: Checkpoint) -> _Pair:
    names = ["hallucinated_at_home", "hallucinated_at_home_expected"]
    seen, expected = (figure(checkpoint, name) for name in names)
    return expected, seen, _within(run, checkpoint, (seen, expected), names)


def _within(run: Run, checkpoint: Checkpoint, pair: Sequence[Interval], names: Sequence[str]) -> Relation:
    """Where the first of two figures of one checkpoint lies beside the second; ``names``: of their resamples."""
    columns = [checkpoint.resamples.get(name) for name in names]
    return relation(paired([interval.value for interval in pair], columns, run.params.evaluate.confidence))


_CONTRASTS = (
    _Contrast(
        "Named in the last sentence, beside the first",
        ("first sentence", "last sentence"),
        {"higher": "late in the text", "lower": "early in the text"},
        lambda run, checkpoint: _places(run, checkpoint, "sentence", "chair_i_here"),
    ),
    _Contrast(
        "Rare kinds of object, beside frequent ones",
        ("frequent kinds", "rare kinds"),
        {"higher": "of rare kinds of object", "lower": "of frequent kinds of object"},
        lambda run, checkpoint: _places(run, checkpoint, "frequency", "chair_i"),
    ),
    _Contrast(
        "Kinds that usually go with the background, beside what their frequency alone would give",
        ("by frequency", "hallucinated"),
        {
            "higher": "of what usually goes with the background than frequency would give",
            "lower": "of what is foreign to the background than frequency would give",
        },
        _background,
    ),
)
