"""The page: from a run's figures and texts to one self-contained HTML file.

Every word about the outcome is chosen by the figures beside it; nothing here knows what to hope for.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from stages.common.world.scene import Scene
from stages.common.world.vocabulary import BACKGROUNDS, COLOUR_WORDS, COLOURS, KINDS
from stages.report.charts import loss_chart, palette
from stages.report.comparison import comparisons
from stages.report.figures import shown_change
from stages.report.findings import findings
from stages.report.load_run import DESCRIBING_TASKS, Answer, Checkpoint, PhaseData, Picture, Run
from stages.report.sections import against, beside, figure_table, sections
from stages.report.timeline import timeline

_TEMPLATES = Path(__file__).parent / "templates"
_LOSS_SIZES = {"wide": (1180, 340), "medium": (700, 320), "narrow": (356, 280)}  # pixels: desktop, tablet, phone
_PHOTOGRAPH = 480  # pixels, longer side


def render_page(run: Run) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(thousands=thousands, short=short_number, change=shown_change)
    environment.globals.update(beside=beside, against=against)
    return environment.get_template("page.html.j2").render(context(run))


def context(run: Run) -> dict[str, Any]:
    """What the template shows, in the page's order."""
    names = list(run.checkpoints)
    first = run.checkpoints[names[0]]
    colours = palette(run.params, names)
    scenes = [scene_view(run, picture) for picture in run.pictures]
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "names": names,
        "colours": [colours[name] for name in names],
        "params": run.params,
        "drawn": run.params.data.source == "world",
        "evaluation": first.evaluation,
        "confidence": f"{100 * run.params.evaluate.confidence:g}",
        "script": Markup(script),
        "script_source": f"'sha256-{digest}'",
        "comparisons": comparisons(run),
        "findings": findings(run),
        "scenes": scenes,
        "measured": any(scene.measured for scene in scenes),
        "shares": {task: text_shares(run, task) for task in DESCRIBING_TASKS},
        "sections": sections(run),
        "loss_charts": {kind: Markup(loss_chart(run, *size)) for kind, size in _LOSS_SIZES.items()},
        "runs": list(run.checkpoints.values()),
        "table": figure_table(run),
        "data": data_rows(run),
        "timeline": timeline(run.times),
    }


def text_shares(run: Run, task: str) -> list[float]:
    """Of each checkpoint, how long its texts are beside the longest: columns as wide as that are about as tall."""
    lengths = [
        sum(len(checkpoint.answers[picture.id, task].answer) for picture in run.pictures)
        for checkpoint in run.checkpoints.values()
    ]
    longest = max(lengths) or 1
    return [round(max(length / longest, 0.3), 2) for length in lengths]


def thousands(number: float) -> str:
    return f"{number:,.0f}"


def short_number(number: float) -> str:
    """3.41 M, 410 k, 87."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"


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
    """``background`` is "word name", or nothing for a photograph. ``measured``: what it shows is known."""

    title: str
    subtitle: str
    background: str
    image: str
    measured: bool
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
    known = scene is not None or any(view.wrong or view.missed or len(view.segments) > 1 for view in views)
    return SceneView(title, subtitle, background, image_url(picture), known, groups, tasks)


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


# Data.


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
