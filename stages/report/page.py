"""The page: from a run's figures and texts to one self-contained HTML file.

Every word about the outcome is chosen by the figures beside it; nothing here knows what to hope for.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from stages.common.world import BACKGROUNDS, COLOUR_WORDS, COLOURS, KINDS, Scene
from stages.report.catalogue import CHARTED, DECIDING, LENGTH, Metric, grouped
from stages.report.charts import loss_chart, metric_chart, palette
from stages.report.merge import DESCRIBING_TASKS, Answer, Checkpoint, Interval, PhaseData, Picture, Run

_TEMPLATES = Path(__file__).parent / "templates"
_LOSS_SIZES = {"wide": (1180, 340), "medium": (700, 320), "narrow": (356, 280)}  # pixels: desktop, tablet, phone
_PHOTOGRAPH = 480  # pixels, longer side
_EQUAL_BUDGETS = 0.01  # budgets that differ by less than this share count as equal

Relation = Literal["lower", "higher", "unclear", "undefined"]


def render_page(run: Run) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(thousands=thousands, short=short_number)
    return environment.get_template("page.html.j2").render(context(run))


def context(run: Run) -> dict[str, Any]:
    """What the template shows, in the page's order."""
    names = list(run.checkpoints)
    first = run.checkpoints[names[0]]
    colours = palette(run.params, names)
    return {
        "names": names,
        "colours": [colours[name] for name in names],
        "params": run.params,
        "drawn": run.params.data.source == "world",
        "evaluation": first.evaluation,
        "confidence": f"{100 * run.params.evaluate.confidence:g}",
        "comparisons": comparisons(run),
        "scenes": [scene_view(run, picture) for picture in run.pictures],
        "columns": {task: column_widths(run, task) for task in DESCRIBING_TASKS},
        "loss_charts": {kind: Markup(loss_chart(run, *size)) for kind, size in _LOSS_SIZES.items()},
        "runs": list(run.checkpoints.values()),
        "metric_charts": [(metric, Markup(metric_chart(run, metric))) for metric in _charted(run)],
        "reference_lengths": first.reference_lengths,
        "table": metric_rows(run),
        "data": data_rows(run),
    }


class Columns(NamedTuple):
    """CSS grid columns, a checkpoint each."""

    wide: str
    narrow: str


def column_widths(run: Run, task: str) -> Columns:
    """Columns about as wide as their texts are long, so that none is much taller than the others."""
    lengths = [
        sum(len(checkpoint.answers[picture.id, task].answer) for picture in run.pictures)
        for checkpoint in run.checkpoints.values()
    ]
    longest = max(lengths) or 1
    shares = [max(length / longest, 0.3) for length in lengths]
    return Columns(
        " ".join(f"minmax(150px, {share:.2f}fr)" for share in shares),
        " ".join(f"{110 + 180 * share:.0f}px" for share in shares),
    )


def thousands(number: float) -> str:
    return f"{number:,.0f}"


def short_number(number: float) -> str:
    """3.41 M, 410 k, 87."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"


# The answer to the page's question.


@dataclass(frozen=True)
class Arm:
    """One side of a comparison. ``tokens``: target tokens of the whole chain after pretraining, all epochs."""

    checkpoint: Checkpoint
    chain: tuple[str, ...]
    tokens: int


@dataclass(frozen=True)
class DecidingFigure:
    """A figure of both arms. ``relation`` is that of the curriculum to the control; spans are percent of the scale."""

    metric: Metric
    curriculum: Interval
    control: Interval
    relation: Relation
    spans: tuple[tuple[float, float, float] | None, tuple[float, float, float] | None]  # left, width, dot
    scale: tuple[str, str]

    @property
    def verdict(self) -> str:
        if self.relation == "unclear":
            return "no clear difference"
        if self.relation == "undefined":
            return "cannot be compared: a figure is undefined"
        return f"{self.relation} with the curriculum"

    @property
    def good(self) -> bool | None:
        """Whether the curriculum did better; None where that is open."""
        return None if self.relation in ("unclear", "undefined") else self.relation == self.metric.better


@dataclass(frozen=True)
class Comparison:
    curriculum: Arm
    control: Arm
    figures: tuple[DecidingFigure, ...]

    @property
    def budget_gap(self) -> float:
        """Difference of the two budgets as a share of the curriculum's."""
        return abs(self.control.tokens - self.curriculum.tokens) / max(self.curriculum.tokens, 1)

    @property
    def headline(self) -> str:
        invented = self.figures[0]
        if invented.relation == "undefined":
            return "Open: a figure is undefined"
        if invented.relation == "unclear":
            return "No clear difference in this run"
        outcome = f"{'fewer' if invented.good else 'more'} of the objects named are invented"
        if self.budget_gap > _EQUAL_BUDGETS:
            return f"Open, as the budgets are unequal: {outcome}"
        return f"{'Yes' if invented.good else 'No'}, in this run: {outcome}"

    @property
    def budget(self) -> str:
        if self.budget_gap == 0:
            return "The budgets of the two arms are equal."
        gap = 100 * self.budget_gap
        return f"The budgets of the two arms differ by {f'{gap:.1g}' if gap < 1 else f'{gap:.0f}'} %."

    @property
    def lengths(self) -> tuple[str, str] | None:
        """Mean characters of both arms' texts: who says less also invents less."""
        both = [
            arm.checkpoint.evaluation.intervals.get(LENGTH.key, _UNDEFINED) for arm in (self.curriculum, self.control)
        ]
        return (
            None
            if any(length.value is None for length in both)
            else tuple(LENGTH.show(length.value) for length in both)
        )


def comparisons(run: Run) -> list[Comparison]:
    """Each control arm against the end of its curriculum, by the deciding figures that the run has."""
    every = [checkpoint.evaluation.intervals for checkpoint in run.checkpoints.values()]
    deciding = [metric for metric in DECIDING if any(metric.key in intervals for intervals in every)]
    found = []
    for phases in run.params.sft.comparisons if deciding else ():
        curriculum, control = (_arm(run, phase) for phase in phases)
        figures = tuple(_deciding_figure(metric, curriculum.checkpoint, control.checkpoint) for metric in deciding)
        found.append(Comparison(curriculum, control, figures))
    return found


def _arm(run: Run, phase: str) -> Arm:
    chain = run.params.sft.chain(phase)
    data = [run.checkpoints[f"sft-{link}"].data for link in chain]
    tokens = run.params.sft.epochs * sum(part.target_tokens for part in data if part is not None)
    return Arm(run.checkpoints[f"sft-{phase}"], ("pretrain", *(f"sft-{link}" for link in chain)), tokens)


def relation(one: Interval, other: Interval) -> Relation:
    """Where ``one`` lies in relation to ``other``; intervals that touch decide nothing."""
    if not (one.defined and other.defined):
        return "undefined"
    if one.high < other.low:
        return "lower"
    if one.low > other.high:
        return "higher"
    return "unclear"


_UNDEFINED = Interval(value=None, low=None, high=None)


def _deciding_figure(metric: Metric, curriculum: Checkpoint, control: Checkpoint) -> DecidingFigure:
    both = [arm.evaluation.intervals.get(metric.key, _UNDEFINED) for arm in (curriculum, control)]
    ends = [end for interval in both if interval.defined for end in (interval.low, interval.high)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    margin = 0.15 * (high - low) or 0.05
    low, high = max(0.0, low - margin), min(1.0, high + margin)

    def span(interval: Interval) -> tuple[float, float, float] | None:
        if not interval.defined:
            return None
        left, right, dot = (100 * (x - low) / (high - low) for x in (interval.low, interval.high, interval.value))
        return round(left, 1), round(right - left, 1), round(dot, 1)

    return DecidingFigure(
        metric, *both, relation(*both), (span(both[0]), span(both[1])), (metric.show(low), metric.show(high))
    )


# The eight scenes.


class Segment(NamedTuple):
    """A stretch of an answer. ``state`` of a mention: right, wrong (not in the picture), colour (wrong colour)."""

    text: str
    state: Literal["plain", "right", "wrong", "colour"]
    note: str


class AnswerView(NamedTuple):
    checkpoint: str
    segments: list[Segment]
    wrong: list[str]
    colours: list[str]
    missed: list[str]


class TaskView(NamedTuple):
    task: str
    prompt: str
    reference: str
    answers: list[AnswerView]


class GroupView(NamedTuple):
    word: str
    kind: str
    count: int
    colour: str
    rgb: str


class SceneView(NamedTuple):
    """``background`` is "word name", or nothing for a photograph, whose truth is not known."""

    title: str
    subtitle: str
    background: str
    image: str
    groups: list[GroupView]
    tasks: list[TaskView]


def segments(answer: Answer) -> list[Segment]:
    """The answer cut at its mentions; a mention that overlaps an earlier one or lies outside the text is left plain."""
    found, done = [], 0
    for mention in sorted(answer.mentions, key=lambda m: (m.start, -m.end)):
        if mention.start < done or mention.end > len(answer.answer) or mention.end <= mention.start:
            continue
        if mention.start > done:
            found.append(Segment(answer.answer[done : mention.start], "plain", ""))
        word = answer.answer[mention.start : mention.end]
        if not mention.supported:
            found.append(Segment(word, "wrong", "not in the picture"))
        elif mention.colour_right is False:
            found.append(Segment(word, "colour", "in the picture, but not in this colour"))
        else:
            found.append(Segment(word, "right", "in the picture"))
        done = mention.end
    if done < len(answer.answer):
        found.append(Segment(answer.answer[done:], "plain", ""))
    return found


def answer_view(checkpoint: str, answer: Answer, scene: Scene | None) -> AnswerView:
    truth = {group.kind: group.colour for group in scene.groups} if scene else {}
    wrong = _unique(mention.word for mention in answer.mentions if not mention.supported)
    colours = _unique(
        f"{mention.word}: {_colour_word(mention.colour)}, is {_colour_word(truth[mention.kind])}"
        for mention in answer.mentions
        if mention.supported and mention.colour_right is False and mention.colour and mention.kind in truth
    )
    missed = [KINDS[kind].words[0] if kind in KINDS else kind for kind in answer.missed]
    return AnswerView(checkpoint, segments(answer), wrong, colours, missed)


def _unique(words: Any) -> list[str]:
    return list(dict.fromkeys(words))


def _colour_word(colour: str) -> str:
    return COLOUR_WORDS[colour][0] if colour in COLOUR_WORDS else colour


def scene_view(run: Run, picture: Picture) -> SceneView:
    scene = picture.scene
    title, subtitle = split_title(picture.id)
    tasks = []
    for task in DESCRIBING_TASKS:
        answers = {name: checkpoint.answers[picture.id, task] for name, checkpoint in run.checkpoints.items()}
        first = next(iter(answers.values()))
        views = [answer_view(name, answer, scene) for name, answer in answers.items()]
        tasks.append(TaskView(task, first.prompt, first.reference, views))
    groups = [
        GroupView(
            KINDS[group.kind].words[0],
            group.kind,
            group.count,
            group.colour,
            "rgb({} {} {})".format(*COLOURS[group.colour]),
        )
        for group in (scene.groups if scene else ())
    ]
    background = f"{BACKGROUNDS[scene.background].words[0]} {scene.background}" if scene else ""
    return SceneView(title, subtitle, background, image_url(picture), groups, tasks)


def image_url(picture: Picture) -> str:
    """The picture itself, drawn ones as they are and photographs at the size of the page."""
    data, kind = picture.data, "png"
    if picture.scene is None:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        image.thumbnail((_PHOTOGRAPH, _PHOTOGRAPH))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        data, kind = buffer.getvalue(), "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def split_title(scene_id: str) -> tuple[str, str]:
    """舞蹈-dance is 舞蹈, with the subtitle "dance"; an id in one script stays whole."""
    match = re.fullmatch(r"([^\x00-\x7f]+)-([\x00-\x7f]+)", scene_id)
    return (match[1], match[2].replace("-", " ")) if match else (scene_id, "")


# Figures and data.


class MetricRow(NamedTuple):
    metric: Metric
    cells: list[Interval]


def _charted(run: Run) -> list[Metric]:
    present = {
        key
        for checkpoint in run.checkpoints.values()
        for key, interval in checkpoint.evaluation.intervals.items()
        if interval.value is not None
    }
    return [metric for metric in CHARTED if metric.key in present]


def metric_rows(run: Run) -> list[tuple[str, list[MetricRow]]]:
    every = [checkpoint.evaluation.intervals for checkpoint in run.checkpoints.values()]
    return [
        (title, [MetricRow(metric, [intervals.get(key, _UNDEFINED) for intervals in every]) for key, metric in rows])
        for title, rows in grouped({key for intervals in every for key in intervals})
    ]


class DataRow(NamedTuple):
    checkpoint: str
    after: str
    control_for: str | None
    data: PhaseData
    share: float  # of the largest number of target tokens, in percent


def data_rows(run: Run) -> list[DataRow]:
    phases: Sequence[Checkpoint] = [
        checkpoint for checkpoint in run.checkpoints.values() if checkpoint.data is not None
    ]
    controls = {control: curriculum for curriculum, control in run.params.sft.comparisons}
    largest = max((phase.data.target_tokens for phase in phases), default=1) or 1
    return [
        DataRow(
            phase.name,
            phase.after,
            controls.get(phase.phase),
            phase.data,
            100 * phase.data.target_tokens / largest,
        )
        for phase in phases
    ]
