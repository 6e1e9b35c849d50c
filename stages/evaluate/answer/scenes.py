"""A checkpoint on the built-in world: both prompts, yes/no questions, losses of reference texts, hidden states."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from stages.common.config.params import Params
from stages.common.data.chat import with_image
from stages.common.data.features import load_mean
from stages.common.data.shards import read_rows
from stages.evaluate.answer.answerer import Answerer, Question
from stages.evaluate.answer.losses import Other, make_reference, text_losses
from stages.evaluate.files import (
    FAR_FIRST,
    TEXT_TASKS,
    WORLD_PROMPTS,
    YES_NO_TASKS,
    Answer,
    TextLosses,
    write_answers,
    write_hidden,
    write_losses,
)

_YES_NO_TOKENS = 24  # longest answer to a yes/no question: the yes or no and a sentence after it

Row = dict[str, Any]


def answer_scenes(answerer: Answerer, params: Params, folder: Path, label: str, split: str) -> None:
    """Writes answers, losses and, where ``split`` is test, hidden states into ``folder``."""
    columns = ["id", "scene", "texts"]
    rows = list(read_rows(split, columns, params.evaluate.scenes))
    fixed = list(read_rows("fixed", columns))
    answers: list[Answer] = []
    for task in TEXT_TASKS:
        answers += _text_answers(answerer, rows, split, task, params, label)
        answers += _text_answers(answerer, fixed, "fixed", task, params, label)
    # No losses: they are of a description in the usual order.
    answers += _text_answers(answerer, rows[: params.evaluate.far_first_scenes], split, FAR_FIRST, params, label)
    write_answers(folder, [*answers, *_yes_no_answers(answerer, rows, split, params, label)])
    write_losses(folder, scene_losses(answerer, rows, split, params, label))
    if split == "test":
        for name, scenes in (("validation", sum(1 for _ in read_rows("validation", ["id"]))), ("test", len(rows))):
            questions = [Question((number,), with_image(WORLD_PROMPTS["description"])) for number in range(scenes)]
            pictures = answerer.pictures(name, params.encode.cache)
            write_hidden(folder, name, answerer.hidden_states(questions, pictures, f"{label} hidden states {name}"))


def other_rows(groups: Sequence[Hashable]) -> list[int | None]:
    """For each row another one of the same group, half the group further on, cyclically; None where it is the only
    one."""
    members: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    others: list[int | None] = [None] * len(groups)
    for rows in members.values():
        for place, number in enumerate(rows if len(rows) > 1 else ()):
            others[number] = rows[(place + len(rows) // 2) % len(rows)]
    return others


def scene_losses(answerer: Answerer, rows: Sequence[Row], split: str, params: Params, label: str) -> list[TextLosses]:
    """Of the first reference text of each task; the other picture has the same background, so that a text's objects
    are what differs."""
    backgrounds = [json.loads(row["scene"])["background"] for row in rows]
    others = other_rows(backgrounds)
    references, stand_ins = [], []
    for task in TEXT_TASKS:
        for number in range(len(rows)):
            turns = [(with_image(WORLD_PROMPTS[task]), [_reference(rows[number], task)])]
            references.append(make_reference(answerer, rows[number]["id"], task, turns, [number]))
            other = others[number]
            stand_ins.append(None if other is None else Other(rows[other]["id"], [other]))
    pictures = answerer.pictures(split, params.encode.cache)
    return text_losses(answerer, references, stand_ins, pictures, load_mean(), label)


def _reference(row: Row, task: str) -> str:
    return "".join(next(text for text in row["texts"] if text["task"] == task)["answer"])


def _text_answers(
    answerer: Answerer, rows: Sequence[Row], split: str, task: str, params: Params, label: str
) -> list[Answer]:
    prompt = WORLD_PROMPTS[task]
    questions = [Question((number,), with_image(prompt)) for number in range(len(rows))]
    pictures = answerer.pictures(split, params.encode.cache)
    texts = answerer.answer(questions, pictures, params.evaluate.max_new_tokens, f"{label} {split} {task}")
    return [
        Answer(row["id"], split, task, prompt, text, _reference(row, task))
        for row, text in zip(rows, texts, strict=True)
    ]


def _yes_no_answers(answerer: Answerer, rows: Sequence[Row], split: str, params: Params, label: str) -> list[Answer]:
    asked = [(number, text) for number, row in enumerate(rows) for text in row["texts"] if text["task"] in YES_NO_TASKS]
    questions = [Question((number,), with_image(text["question"])) for number, text in asked]
    pictures = answerer.pictures(split, params.encode.cache)
    answers = answerer.answer(questions, pictures, _YES_NO_TOKENS, f"{label} yes/no")
    return [
        Answer(
            rows[number]["id"],
            split,
            text["task"],
            text["question"],
            answer,
            "".join(text["answer"]),
            text["kind"],
            text["expected"],
        )
        for (number, text), answer in zip(asked, answers, strict=True)
    ]
