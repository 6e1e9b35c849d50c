"""Texts about pictures, read from a file: JSON lines, or the form of the notes (a reproduction of MiniMind-V).

{"image": "dog.jpg", "text": "一只小狗。"}

[Image]: dog.jpg
🤖️: 一只小狗，
坐在草地上。
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stages.common.core.errors import InputError

_IMAGE = re.compile(r"\s*\[Image\]\s*[:：]\s*(.*?)\s*$", re.IGNORECASE)
# An emoji and a colon; the last one of a block begins the model's text.
_SPEAKER = re.compile(r"(?m)^\s*[^\w\s，。！？、“”\"'（(《【\[]{1,4}\s*[:：]\s*")


class Transcript(NamedTuple):
    """``line``: the number of the line of the file that names the picture, from 1."""

    image: str
    text: str
    line: int


def read_transcripts(path: Path) -> list[Transcript]:
    """Raises InputError that names the line and the error in it."""
    try:
        # Not splitlines: a JSON string may hold other characters at which Python ends a line.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}; name a text file, saved as UTF-8") from None
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise InputError(f"{path} is empty; it must hold JSON lines, or [Image]: lines with texts below them")
    found = list(_json_lines(path, lines) if first.lstrip().startswith("{") else _notes(path, lines))
    if not found:
        raise InputError(
            f'{path} holds neither JSON lines, {{"image": ..., "text": ...}}, nor [Image]: lines with texts below them'
        )
    return found


def _json_lines(path: Path, lines: list[str]) -> Iterator[Transcript]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: not valid JSON: {error}; write one object a line") from None
        values = [row.get(key) if isinstance(row, dict) else None for key in ("image", "text")]
        if not all(isinstance(value, str) for value in values):
            raise InputError(f'{path}, line {number}: needs "image" and "text", both as text; add what is missing')
        yield Transcript(*values, number)


def _notes(path: Path, lines: list[str]) -> Iterator[Transcript]:
    """Lines before the first picture (the parameter count) are skipped."""
    image, start, answer = None, 0, list[str]()
    for number, line in enumerate([*lines, "[Image]: "], start=1):
        if (match := _IMAGE.match(line)) is None:
            answer.append(line)
            continue
        if image is not None:
            yield Transcript(image, _SPEAKER.split("\n".join(answer).strip())[-1], start)
        image, start, answer = match[1], number, []
        if not image and number <= len(lines):
            raise InputError(f"{path}, line {number}: [Image]: without the name of a picture; write it there")
