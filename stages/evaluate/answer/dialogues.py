"""A checkpoint on dialogues read from files: answers to first questions, both prompts on the photographs, and losses of
the dialogues.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.config.params import Params
from stages.common.data.chat import IMAGE
from stages.common.data.features import load_mean
from stages.common.data.shards import picture_starts, read_rows
from stages.evaluate.answer.answerer import Answerer, Question
from stages.evaluate.answer.losses import Other, make_reference, text_losses
from stages.evaluate.files import (
    DIALOGUE,
    FILE_PROMPTS,
    TEXT_TASKS,
    Answer,
    TextLosses,
    write_answers,
    write_losses,
)

Row = dict[str, Any]


def answer_dialogues(answerer: Answerer, params: Params, folder: Path, label: str, split: str) -> None:
    """Writes answers and losses for rows of ``split`` into ``folder``."""
    rows = list(read_rows(split, ["id", "texts"], params.evaluate.scenes))
    answers = _first_answers(answerer, rows, params, label, split)
    write_answers(folder, [*answers, *_photographs(answerer, params, label)])
    write_losses(folder, dialogue_losses(answerer, rows, params, label, split))


def dialogue_losses(
    answerer: Answerer, rows: Sequence[Row], params: Params, label: str, split: str
) -> list[TextLosses]:
    starts = picture_starts(split)
    references = []
    for number, row in enumerate(rows):
        turns = [(turn["question"], turn["answer"]) for turn in row["texts"]]
        pictures = range(starts[number], starts[number + 1])
        references.append(make_reference(answerer, row["id"], DIALOGUE, turns, pictures))
    shown = [[int(picture) for picture in reference.sample[0]] for reference in references]
    others = [
        None
        if pictures is None
        else Other(rows[int(np.searchsorted(starts, pictures[0], "right")) - 1]["id"], pictures)
        for pictures in other_pictures(shown)
    ]
    pictures = answerer.pictures(split, params.encode.cache)
    return text_losses(answerer, references, others, pictures, load_mean(), label)


def other_pictures(shown: Sequence[Sequence[int]]) -> list[list[int] | None]:
    """For the pictures of each text those half the list further on, cyclically, because adjacent texts may show the
    same picture.

    None for a text without pictures, or where one of its own would stand in.
    """
    around = [number for numbers in shown for number in numbers]
    place = {number: index for index, number in enumerate(around)}
    others: list[list[int] | None] = []
    for numbers in shown:
        found = [around[(place[number] + len(around) // 2) % len(around)] for number in numbers]
        others.append(found if found and not set(found) & set(numbers) else None)
    return others


def _first_answers(answerer: Answerer, rows: Sequence[Row], params: Params, label: str, split: str) -> list[Answer]:
    """An empty answer where the question leaves no room for one in the decoder's positions."""
    starts = picture_starts(split)
    longest = params.evaluate.max_new_tokens
    available = answerer.model.config.text_config.max_position_embeddings - longest
    questions, asked = [], []
    for number, row in enumerate(rows):
        prompt = row["texts"][0]["question"]
        question = Question(tuple(range(starts[number], starts[number] + prompt.count(IMAGE))), prompt)
        if answerer.length(question) <= available:
            questions.append(question)
            asked.append(number)
    pictures = answerer.pictures(split, params.encode.cache)
    texts = dict(zip(asked, answerer.answer(questions, pictures, longest, f"{label} {split} questions"), strict=True))
    return [
        Answer(
            row["id"],
            split,
            "description",
            _without_images(row["texts"][0]["question"]),
            texts.get(number, ""),
            "".join(row["texts"][0]["answer"]),
        )
        for number, row in enumerate(rows)
    ]


def _photographs(answerer: Answerer, params: Params, label: str) -> list[Answer]:
    names = [row["id"] for row in read_rows("fixed", ["id"])]
    answers: list[Answer] = []
    for task in TEXT_TASKS if names else ():
        prompt = f"{IMAGE}\n{FILE_PROMPTS[task]}"
        questions = [Question((number,), prompt) for number in range(len(names))]
        pictures = answerer.pictures("fixed", params.encode.cache)
        texts = answerer.answer(questions, pictures, params.evaluate.max_new_tokens, f"{label} photographs {task}")
        answers += [
            Answer(name, "fixed", task, FILE_PROMPTS[task], text) for name, text in zip(names, texts, strict=True)
        ]
    return answers


def _without_images(prompt: str) -> str:
    return prompt.replace(IMAGE, "").strip()
