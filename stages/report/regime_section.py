"""Does plain fine-tuning hallucinate in this run? The curve along the text, the conditions, the notes' figures beside.

A comparison of curriculum and control says something about a cure only where plain fine-tuning has the trouble.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from markupsafe import Markup

from stages.report.cards import DotCard, dot_card
from stages.report.charts.line_chart import line_chart
from stages.report.notes_texts import NOTES_TEXTS
from stages.report.run.figures import Relation, difference, figure, format_change, format_interval, relation
from stages.report.run.load_run import PRETRAIN, Run
from stages.report.run.metric_specs import BY_KEY, CAPTION_PREFIX, FAR_FIRST_PREFIX, Metric
from stages.report.run.records import Interval
from stages.report.run.regime import Judged, direct_checkpoint, judge
from stages.report.statements import unique

_TROUBLE = ("rise", "per_text", "per_mention")  # the conditions that are the trouble itself
_RESULTS: Mapping[Relation, tuple[str, str]] = {
    "higher": ("✓", "holds"),
    "lower": ("✗", "does not hold"),
    "unclear": ("≈", "cannot be told"),
    "undefined": ("–", "not measured"),
}
_CURVE_SIZES = {"wide": (770, 380), "medium": (700, 320), "narrow": (340, 260)}  # pixels: desktop, tablet, phone
_OPENING_SENTENCES = 2

Verdict = Literal["has", "lacks", "otherwise", "unclear"]


class ConditionRow(NamedTuple):
    title: str
    larger: str
    smaller: str
    change: str
    relation: Relation
    symbol: str
    result: str


class FiguresRow(NamedTuple):
    """``checkpoint``: empty in rows of the notes. ``cells``: in the order of ``FIGURES``."""

    checkpoint: str
    title: str
    cells: tuple[str, ...]


class RegimeSection(NamedTuple):
    """``curve``: SVG by size, empty if no checkpoint has the series. ``causes``: headlines and their figures:
    is it the training, or only the length? Depth in the text, or distance?"""

    verdict: str
    count: str
    curve: Mapping[str, Markup]
    beside: list[DotCard]
    cards: list[DotCard]
    conditions: list[ConditionRow]
    causes: list[tuple[str, str]]
    table: list[tuple[str, list[FiguresRow]]]


FIGURES = ("CHAIR-i, %", "first mentions, %", "absent kinds a text", "recall, %", "characters")


def regime_section(run: Run) -> RegimeSection | None:
    """None where nothing of it was measured, or the run has no control arm."""
    judged = judge(run)
    if not judged:
        return None
    relations = [each.relation for each in judged]
    return RegimeSection(
        verdict_sentence(run),
        _count(relations.count("higher"), relations.count("undefined"), len(relations)),
        {size: Markup(_curve(run, *pixels)) for size, pixels in _CURVE_SIZES.items()},
        _present(_opening_card(run, ""), _opening_card(run, FAR_FIRST_PREFIX)),
        _present(*_distance_cards(run)),
        [_condition_row(each) for each in judged],
        [cause for cause in (_training_or_length(run), _depth_or_distance(run)) if cause],
        [("Texts of the notes, on eight photographs", _notes_rows()), ("This run, on test scenes", _run_rows(run))],
    )


def _count(holding: int, undefined: int, conditions: int) -> str:
    missing = f"; {undefined} not measured" if undefined else ""
    return f"{holding} of {conditions} conditions hold{missing}."


def _present(*cards: DotCard | None) -> list[DotCard]:
    return [card for card in cards if card is not None]


def verdict(judged: list[Judged]) -> Verdict:
    """Whether plain fine-tuning has the trouble. Otherwise: it hallucinates as described, but another condition does
    not hold or cannot be told."""
    trouble = [each.relation for each in judged if each.condition.key in _TROUBLE]
    if all(each.relation == "higher" for each in judged):
        return "has"
    if all(found == "higher" for found in trouble):
        return "otherwise"
    return "lacks" if "lower" in trouble else "unclear"


def verdict_sentence(run: Run) -> str:
    """What a comparison of the arms of this run is worth; stands beside every such comparison."""
    judged = judge(run)
    if not judged:
        return (
            "Whether plain SFT has the trouble that the notes describe was not measured in this run: "
            "a comparison of arms here may say nothing about a cure."
        )
    subject = f"plain SFT ({direct_checkpoint(run)})"
    return {
        "has": f"In this run, {subject} has the trouble that the notes describe: it names absent things more often "
        "than pretraining does, and more often the further its descriptions from near to far go, although it looks at "
        "the picture where it names near things.",
        "otherwise": f"In this run, {subject} names absent things more often than pretraining does, and more often the "
        "further its descriptions from near to far go, but not under all conditions of the notes: a comparison of "
        "arms here says little about a cure.",
        "lacks": f"In this run, {subject} does not have the trouble that the notes describe: a comparison of arms here "
        "says nothing about a cure.",
        "unclear": f"Whether {subject} has the trouble that the notes describe cannot be told from this run: "
        "a comparison of arms here may say nothing about a cure.",
    }[verdict(judged)]


def _curve(run: Run, width: int, height: int) -> str:
    arms = unique(f"sft-{phase}" for pair in run.params.sft.comparisons for phase in pair)
    # The training texts are cut to the length of a checkpoint's own texts: here, those of plain fine-tuning.
    direct = run.checkpoints[direct_checkpoint(run)]
    levels = [
        (first, figure(direct, f"reference_chair_i_{part}").value)
        for first, part in ((1, "opening"), (1 + _OPENING_SENTENCES, "rest"))
    ]
    return line_chart(
        run,
        "sentence",
        "chair_i_new",
        100.0,
        "sentence of the description",
        size=(width, height),
        banded=arms,
        steps=[level for level in levels if level[1] is not None],
    )


def _opening_card(run: Run, prefix: str) -> DotCard | None:
    order = "far" if prefix else "near"
    keys = {"first two sentences": f"{prefix}chair_i_opening", "the rest": f"{prefix}chair_i_rest"}
    return dot_card(
        run,
        BY_KEY["chair_i_opening"],
        keys,
        title=f"CHAIR-i along the text, {order} things first",
        reading=(
            "The same prompt, but for the order that it asks for: depth in the text and distance come apart."
            if prefix
            else "Of the first mentions of kinds, the share that is not in the picture."
        ),
    )


def _distance_cards(run: Run) -> list[DotCard | None]:
    titles = {
        "recall": "Recall of near and far things",
        "hallucinated": "Hallucinated, near and far",
        "misnamed": "Misnamed, near and far",
        "two_alternative": "Two-alternative accuracy, near and far",
    }
    readings = {
        "recall": "Of the kinds of near (large) and far (small) things in the picture, the share that is named.",
        "hallucinated": "Of the first mentions of kinds, in clauses without (near) and with (far) a word such as 远处, "
        "in the distance.",
        "misnamed": "Of the same mentions: position or colour fit another thing of the same class.",
        "two_alternative": "How often the words for a thing have a lower loss with its own picture than with another "
        "one of the same background. Near things are introduced with a measure word, which counts, far ones without.",
    }
    return [
        dot_card(
            run,
            BY_KEY[f"{key}_near"],
            {distance: f"{key}_{distance}" for distance in ("near", "far")},
            guides=[0.5] if key == "two_alternative" else (),
            dashed="chance" if key == "two_alternative" else "",
            title=title,
            reading=readings[key],
        )
        for key, title in titles.items()
    ]


def _condition_row(each: Judged) -> ConditionRow:
    key = next(side[1] for side in (each.condition.larger, each.condition.smaller) if not isinstance(side, float))
    metric = BY_KEY[key.removeprefix(CAPTION_PREFIX)]
    symbol, result = _RESULTS[each.relation]
    return ConditionRow(
        each.condition.title,
        format_interval(metric, each.larger),
        format_interval(metric, each.smaller),
        format_change(metric, each.change),
        each.relation,
        symbol,
        result,
    )


def _notes_rows() -> list[FiguresRow]:
    return [
        FiguresRow("", text.model, (text.chair_i, "", text.unsupported, text.recall, text.length))
        for text in NOTES_TEXTS
    ]


def _run_rows(run: Run) -> list[FiguresRow]:
    (curriculum, control), *_ = run.params.sft.comparisons
    direct = f"sft-{control}"
    rows = [
        FiguresRow(PRETRAIN, "short prompt", _cells(run, PRETRAIN, CAPTION_PREFIX)),
        FiguresRow(PRETRAIN, "long prompt", _cells(run, PRETRAIN)),
    ]
    opening = [format_interval(BY_KEY[key], figure(run.checkpoints[direct], key)) for key in _OPENING_KEYS]
    rows.append(FiguresRow(direct, "long prompt, first two sentences", ("", *opening)))
    rows += [FiguresRow(name, "long prompt", _cells(run, name)) for name in (direct, f"sft-{curriculum}")]
    return rows


_OPENING_KEYS = ("chair_i_opening", "unsupported_opening", "recall_opening", "length_opening")


def _cells(run: Run, name: str, prefix: str = "") -> tuple[str, ...]:
    checkpoint = run.checkpoints[name]

    def cell(key: str) -> str:
        return format_interval(BY_KEY[key], figure(checkpoint, prefix + key))

    first = format_interval(BY_KEY["chair_i"], _complement(figure(checkpoint, f"{prefix}precision")))
    return (cell("chair_i"), first, *map(cell, ("unsupported", "recall", "length")))


def _complement(interval: Interval) -> Interval:
    """CHAIR-i of first mentions, from precision."""
    value, low, high = (None if end is None else 1 - end for end in (interval.value, interval.high, interval.low))
    return Interval(value=value, low=low, high=high)


_COMPARED: Mapping[Relation, str] = {
    "higher": "higher",
    "lower": "lower",
    "unclear": "no clear difference",
    "undefined": "the difference is undefined",
}


def _training_or_length(run: Run) -> tuple[str, str] | None:
    """Both checkpoints at the same long prompt: what share of the kinds that they name is absent, in their whole texts
    and in the first two sentences."""
    direct = direct_checkpoint(run)
    whole = difference(run, PRETRAIN, direct, "precision")  # the shares that are absent are 1 - precision
    opening = difference(run, direct, PRETRAIN, "chair_i_opening")
    if whole.value is None or opening.value is None:
        return None
    metric = BY_KEY["chair_i_opening"]
    shares = {
        name: (
            metric.show(_complement(figure(run.checkpoints[name], "precision")).value),
            metric.show(figure(run.checkpoints[name], "chair_i_opening").value),
        )
        for name in (direct, PRETRAIN)
    }
    return (
        _training_or_length_headline(direct, relation(whole), relation(opening)),
        f"At the same long prompt, {shares[direct][0]} % of the kinds that {direct} names are absent, and "
        f"{shares[PRETRAIN][0]} % of those that pretraining names: {_change(metric, whole)} points. In the first two "
        f"sentences alone: {shares[direct][1]} % and {shares[PRETRAIN][1]} %: {_change(metric, opening)} points. "
        f"Counted, {direct} names {_absent(run, direct, '')}, {_absent(run, direct, '_opening')} of its first two "
        f"sentences; pretraining {_absent(run, PRETRAIN, '')}, {_absent(run, PRETRAIN, '_opening')}.",
    )


def _training_or_length_headline(direct: str, whole: Relation, opening: Relation) -> str:
    if whole == "higher" and opening == "higher":
        return f"In this run, not only the length hurts: {direct} is worse already in its first two sentences."
    if whole == "higher" and opening == "lower":
        return f"In this run, the length hurts: in its first two sentences, {direct} is better than pretraining."
    if whole == "higher":
        return f"In this run, {direct} is worse than pretraining, but not clearly so in its first two sentences."
    if whole == "lower" and opening != "higher":
        return f"In this run, neither training nor length hurts: {direct} is better than pretraining."
    return "In this run, training and length cannot be told apart."


def _depth_or_distance(run: Run) -> tuple[str, str] | None:
    """Plain fine-tuning, asked to begin with near things or with far ones."""
    direct = direct_checkpoint(run)
    near, far = (figure(run.checkpoints[direct], f"{prefix}chair_i_rise") for prefix in ("", FAR_FIRST_PREFIX))
    if near.value is None or far.value is None:
        return None
    headline = {
        ("higher", "lower"): "In this run, distance counts more than depth in the text.",
        ("higher", "higher"): "In this run, errors grow along the text in either order.",
    }.get((relation(near), relation(far)), "In this run, depth in the text and distance cannot be told apart.")
    metric = BY_KEY["chair_i_rise"]
    return (
        headline,
        f"From the first two sentences of {direct} to the rest, CHAIR-i of first mentions changes by "
        f"{format_change(metric, near)} points where near things come first, and by {format_change(metric, far)} where "
        f"far things come first (on {run.params.evaluate.scenes} and {run.params.evaluate.far_first_scenes} scenes).",
    )


def _absent(run: Run, name: str, part: str) -> str:
    checkpoint = run.checkpoints[name]
    count, length = (BY_KEY[key].show(figure(checkpoint, key + part).value) for key in ("unsupported", "length"))
    return f"{count} absent kinds in {length} characters"


def _change(metric: Metric, change: Interval) -> str:
    found = relation(change)
    return _COMPARED[found] + ("" if found == "undefined" else f", {format_change(metric, change)}")
