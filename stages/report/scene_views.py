"""The fixed pictures with the answers of every checkpoint, cut at the mentions of objects."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from PIL import Image

from stages.common.world.scene import Scene
from stages.common.world.vocabulary import BACKGROUNDS, COLOUR_WORDS, COLOURS, KINDS
from stages.report.run.load_run import Picture, Run
from stages.report.run.records import DESCRIBING_TASKS, Answer, Mention
from stages.report.statements import readable, unique

_PHOTOGRAPH = 480  # pixels, longer side


class Segment(NamedTuple):
    """A part of an answer: text between mentions (plain) or a mention, whose ``state`` is one of

    right: in the picture; colour: in the picture, in another colour; misnamed: absent, but its stated position or
    colour fits an object of the same class; hallucinated: absent. In a text about a photograph, right stands for what
    the manifest lists, and hallucinated for what it does not list.
    """

    text: str
    state: Literal["plain", "right", "colour", "misnamed", "hallucinated"]
    note: str


_NOTES = {
    "right": "in the picture",
    "colour": "in the picture, but not in this colour",
    "misnamed": "not in the picture; position or colour fit another object of its class",
    "hallucinated": "not in the picture",
}
_PHOTOGRAPH_NOTES = _NOTES | {"right": "listed in the manifest", "hallucinated": "not listed in the manifest"}


class AnswerView(NamedTuple):
    """``misnamed``, ``hallucinated``, ``colours``, ``missed``: words, for the notes below the text."""

    checkpoint: str
    segments: list[Segment]
    misnamed: list[str]
    hallucinated: list[str]
    colours: list[str]
    missed: list[str]


class TaskView(NamedTuple):
    task: str
    prompt: str
    reference: str
    answers: list[AnswerView]


class GroupView(NamedTuple):
    """``colour``, ``rgb``: empty if it has no single colour. ``far``: drawn small."""

    word: str
    kind: str
    count: int
    colour: str
    rgb: str
    far: bool


class SceneView(NamedTuple):
    """``background``: "word name", empty for a photograph. ``measured``: whether mentions in its texts were judged.

    ``drawn``: whether it is a scene of known content, and not a photograph, whose mentions a manifest decides.
    """

    title: str
    subtitle: str
    background: str
    image: str
    measured: bool
    drawn: bool
    groups: list[GroupView]
    tasks: list[TaskView]


def segments(answer: Answer, notes: Mapping[str, str] = _NOTES) -> list[Segment]:
    """The answer cut at its mentions; a mention that overlaps an earlier one or exceeds the text is left plain.

    ``notes``: of each state of a mention.
    """
    found, end = [], 0
    for mention in sorted(answer.mentions, key=lambda m: (m.start, -m.end)):
        if mention.start < end or mention.end > len(answer.answer) or mention.end <= mention.start:
            continue
        if mention.start > end:
            found.append(Segment(answer.answer[end : mention.start], "plain", ""))
        state = mention_state(mention)
        found.append(Segment(answer.answer[mention.start : mention.end], state, notes[state]))
        end = mention.end
    if end < len(answer.answer):
        found.append(Segment(answer.answer[end:], "plain", ""))
    return found


def mention_state(mention: Mention) -> str:
    """The ``state`` of its segment."""
    if not mention.supported:
        return "misnamed" if mention.misnamed else "hallucinated"
    return "colour" if mention.colour_right is False else "right"


def answer_view(checkpoint: str, answer: Answer, scene: Scene | None) -> AnswerView:
    colour_of = {group.kind: group.colour for group in scene.groups} if scene else {}
    words = {
        state: unique(mention.word for mention in answer.mentions if mention_state(mention) == state)
        for state in ("misnamed", "hallucinated")
    }
    colours = unique(
        f"{mention.word}: {_colour_word(mention.colour)}, is {_colour_word(colour_of[mention.kind])}"
        for mention in answer.mentions
        if mention.supported and mention.colour_right is False and mention.colour and colour_of.get(mention.kind)
    )
    missed = [KINDS[kind].words[0] if kind in KINDS else kind for kind in answer.missed]
    cut = segments(answer, _NOTES if scene else _PHOTOGRAPH_NOTES)
    return AnswerView(checkpoint, cut, **words, colours=colours, missed=missed)


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
            readable(group.kind),
            group.count,
            group.colour or "",
            "rgb({} {} {})".format(*COLOURS[group.colour]) if group.colour else "",
            not group.near,
        )
        for group in (scene.groups if scene else ())
    ]
    background = f"{BACKGROUNDS[scene.background].words[0]} {scene.background}" if scene else ""
    known = scene is not None or any(
        view.misnamed or view.hallucinated or view.missed or len(view.segments) > 1
        for task in tasks
        for view in task.answers
    )
    return SceneView(title, subtitle, background, image_url(picture), known, scene is not None, groups, tasks)


def image_url(picture: Picture) -> str:
    """The picture as a data URL; photographs are reduced to the size of the page."""
    data, kind = picture.data, "png"
    if picture.scene is None:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        image.thumbnail((_PHOTOGRAPH, _PHOTOGRAPH))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        data, kind = buffer.getvalue(), "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def split_title(scene_id: str) -> tuple[str, str]:
    """ "舞蹈-dance" gives ("舞蹈", "dance"); an id in one script has no subtitle."""
    match = re.fullmatch(r"([^\x00-\x7f]+)-([\x00-\x7f]+)", scene_id)
    return (match[1], match[2].replace("-", " ")) if match else (scene_id, "")
