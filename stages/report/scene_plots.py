"""`dvc plots` of the fixed pictures: an SVG per picture, with the descriptions of every checkpoint below it.

An SVG and not a bitmap: the browser that shows it has a font for Chinese, so that drawing needs none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from stages.report.run.load_run import Run
from stages.report.scene_views import AnswerView, GroupView, SceneView, Segment, scene_view

_WIDTH = 600  # pixels; two revisions fit side by side on a desktop
_MARGIN, _SIDE = 16, 160  # pixels: around everything; of the picture
_SIZE, _LINE, _GAP = 14, 22, 12  # pixels: of text; between its lines; between blocks
_FONT = "system-ui, 'Segoe UI', Roboto, 'Noto Sans CJK SC', 'Microsoft YaHei', 'PingFang SC', sans-serif"
_INK, _MUTED = "#1b1d22", "#626a76"
_LOOK = {
    "plain": f'fill="{_INK}"',
    "right": 'fill="#17753a"',
    "misnamed": 'fill="#7b3fb0" font-weight="bold" text-decoration="underline"',
    "hallucinated": 'fill="#c3211c" font-weight="bold" text-decoration="underline"',
    "colour": 'fill="#9a5b00" text-decoration="underline"',
}
_LATIN = 0.55  # width of a Latin character; a Chinese one has 1
_CLOSING = frozenset("，。、；：！？）》」』”’,.;:!?)")  # never first in a line
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Line = list[tuple[str, str]]  # (text, state of the segment that it belongs to)
_STATES = {
    "right": "in the picture",
    "colour": "in another colour",
    "misnamed": "misnamed",
    "hallucinated": "hallucinated",
}
_PHOTOGRAPH_STATES = {"right": "listed", "hallucinated": "not listed"}  # in the manifest


def scene_plots(run: Run) -> dict[str, str]:
    """{file name: SVG}; names are ASCII and keep the order of the pictures."""
    views = [scene_view(run, picture) for picture in run.pictures]
    names = [re.sub(r"[^A-Za-z0-9_-]+", "", picture.id).strip("-") for picture in run.pictures]
    return {
        f"{number:02d}-{name}.svg": _svg(view)
        for number, (name, view) in enumerate(zip(names, views, strict=True), start=1)
    }


def _svg(view: SceneView) -> str:
    drawn = [_text(_MARGIN, 32, view.title, f'fill="{_INK}" font-size="18" font-weight="bold"')]
    drawn.append(_text(_WIDTH - _MARGIN, 32, view.subtitle, f'fill="{_MUTED}" text-anchor="end"'))
    drawn.append(
        f'<image x="{_MARGIN}" y="48" width="{_SIDE}" height="{_SIDE}" style="image-rendering: pixelated" '
        f'href="{view.image}"/>'
    )
    content = [view.background, *map(_group_line, view.groups)]
    for index, line in enumerate(content):
        drawn.append(_text(_SIDE + 2 * _MARGIN, 64 + _LINE * index, line, f'fill="{_MUTED}"'))
    y = 48 + max(_SIDE, _LINE * len(content)) + _GAP
    described = next(task for task in view.tasks if task.task == "description")
    states = _STATES if view.drawn else _PHOTOGRAPH_STATES
    if any(_count(answer, states) for answer in described.answers):
        y += _LINE
        drawn.append(_line(y, [part for state, text in states.items() for part in ((text, state), ("   ", "plain"))]))
        y += _GAP
    for answer in described.answers:
        y += _LINE
        drawn.append(_text(_MARGIN, y, answer.checkpoint, f'fill="{_INK}" font-weight="bold"'))
        drawn.append(_text(_WIDTH - _MARGIN, y, _count(answer, states), f'fill="{_MUTED}" text-anchor="end"'))
        for line in wrapped(answer.segments, (_WIDTH - 2 * _MARGIN) / _SIZE):
            y += _LINE
            drawn.append(_line(y, line))
        y += _GAP
    height = y + _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="{_FONT}" font-size="{_SIZE}"><rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


def _group_line(group: GroupView) -> str:
    """2 × 小狗 red dog, far"""
    words = " ".join(filter(None, (group.word, group.colour, group.kind)))
    return f"{group.count} × {words}{', far' if group.far else ''}"


def _line(y: int, line: Line) -> str:
    spans = "".join(f"<tspan {_LOOK[state]}>{_clean(text)}</tspan>" for text, state in line)
    return f'<text x="{_MARGIN}" y="{y}" xml:space="preserve">{spans}</text>'


def _text(x: int, y: int, text: str, look: str) -> str:
    return f'<text x="{x}" y="{y}" {look}>{_clean(text)}</text>'


def _clean(text: str) -> str:
    """Escaped; characters that XML does not allow, which a model may write, are replaced."""
    return escape(_NOT_XML.sub("\ufffd", text))


def _count(answer: AnswerView, words: Mapping[str, str]) -> str:
    """The right-hand side of a checkpoint's heading: numbers of mentions, and the missed objects.

    ``words``: for each state of a mention.
    """
    states = [segment.state for segment in answer.segments]
    present = states.count("right") + states.count("colour")
    absent = {state: states.count(state) for state in ("misnamed", "hallucinated")}
    if not (present or any(absent.values()) or answer.missed):
        return ""
    parts = [f"{present} {words['right']}", *(f"{number} {words[state]}" for state, number in absent.items() if number)]
    return " · ".join([*parts, *([f"missed: {'、'.join(answer.missed)}"] if answer.missed else [])])


def wrapped(segments: Sequence[Segment], width: float) -> list[Line]:
    """Lines of at most ``width`` em; closing punctuation may exceed it."""
    lines: list[Line] = [[]]
    used = 0.0
    for segment in segments:
        for character in segment.text:
            own = _LATIN if character.isascii() else 1.0
            if character == "\n" or (used + own > width and character not in _CLOSING):
                lines.append([])
                used = 0.0
            if character == "\n":
                continue
            used += own
            if lines[-1] and lines[-1][-1][1] == segment.state:
                lines[-1][-1] = (lines[-1][-1][0] + character, segment.state)
            else:
                lines[-1].append((character, segment.state))
    return lines
