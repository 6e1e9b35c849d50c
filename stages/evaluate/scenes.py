"""A checkpoint on the built-in world: every answer is counted against the truth of its scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.common.chat import before_text
from stages.common.params import Params
from stages.common.shards import read_rows
from stages.common.world import Scene, held_out_pairs
from stages.evaluate.answers import Answerer, Question
from stages.evaluate.findings import Findings, pictures_of
from stages.evaluate.metrics import POPE_TASKS, PopeAnswer, TextScore, pope_row, score_text, summarise, text_row

# Fixed, so that checkpoints and runs compare; both are among the prompts that training shows.
PROMPTS = {"description": "请详细描述这张图片。", "caption": "用一句话描述这张图片。"}
YES, NO = "有", "没有"
_POPE_TOKENS = 24  # a yes or no and the sentence after it

Row = dict[str, Any]


def evaluate_scenes(answerer: Answerer, params: Params, label: str) -> Findings:
    columns = ["id", "scene", "texts"]
    test = list(read_rows("test", columns, params.evaluate.scenes))
    fixed = list(read_rows("fixed", columns))
    scores: dict[str, list[TextScore]] = {}
    written: list[Row] = []
    shown: list[tuple[str, str]] = []
    for task in PROMPTS:
        scores[task], rows = _scored_answers(answerer, test, "test", task, params, label)
        seen, fixed_rows = _scored_answers(answerer, fixed, "fixed", task, params, label)
        written += rows + fixed_rows
        shown = shown or [(score.scene.id, score.text) for score in seen]
    pope = _pope_answers(answerer, test, params, label)
    settings = params.evaluate
    intervals = summarise(
        scores["description"],
        scores["caption"],
        pope,
        held_out_pairs(params.seed, params.data.held_out_colours),
        settings.bootstrap_samples,
        settings.confidence,
        params.seed,
    )
    return Findings(len(test), intervals, [*written, *map(pope_row, pope)], shown)


def _scored_answers(
    answerer: Answerer, rows: Sequence[Row], split: str, task: str, params: Params, label: str
) -> tuple[list[TextScore], list[Row]]:
    """Each scene's answer to one prompt, scored, and as a row with a reference text beside it."""
    prompt = PROMPTS[task]
    questions = [Question((number,), before_text(prompt)) for number in range(len(rows))]
    answers = answerer.answer(
        questions, pictures_of(split, params), params.evaluate.max_new_tokens, f"{label} {split} {task}"
    )
    scores, written = [], []
    for row, answer in zip(rows, answers, strict=True):
        scores.append(score_text(answer, Scene.from_json(row["scene"])))
        reference = next("".join(text["answer"]) for text in row["texts"] if text["task"] == task)
        written.append(text_row(scores[-1], split, task, prompt, reference))
    return scores, written


def _pope_answers(answerer: Answerer, rows: Sequence[Row], params: Params, label: str) -> list[PopeAnswer]:
    asked = [(number, text) for number, row in enumerate(rows) for text in row["texts"] if text["task"] in POPE_TASKS]
    questions = [Question((number,), before_text(text["question"])) for number, text in asked]
    pictures = pictures_of("test", params)
    answers = answerer.answer(questions, pictures, _POPE_TOKENS, f"{label} yes/no")
    margins = answerer.margins(questions, pictures, YES, NO, f"{label} margins")
    return [
        PopeAnswer(rows[number]["id"], text["task"], text["question"], answer, text["kind"], text["expected"], margin)
        for (number, text), answer, margin in zip(asked, answers, margins, strict=True)
    ]
