"""Stage evaluate@checkpoint: answers for test scenes, and what is right in them: `python -m stages.evaluate NAME`.

in: data/{prepared,tokenizer,features}, the checkpoint; params seed, data.held_out_colours, evaluate.
out: reports/evaluation/<checkpoint>/{metrics.json, answers.jsonl, samples.txt}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import torch

from model.modeling import count_parameters
from stages.common.chat import load_tokenizer
from stages.common.checkpoints import load_checkpoint
from stages.common.errors import InputError, run_stage
from stages.common.features import load_features
from stages.common.files import whole_folder, write_json, write_text
from stages.common.params import Params, load_params
from stages.common.paths import EVALUATIONS
from stages.common.shards import read_rows
from stages.common.world import Scene, held_out_pairs
from stages.evaluate.answers import Answerer, Question
from stages.evaluate.metrics import (
    POPE_TASKS,
    PopeAnswer,
    TextScore,
    interval_row,
    pope_row,
    samples_text,
    score_text,
    summarise,
    text_row,
)

# Fixed, so that checkpoints and runs compare; both are among the prompts that training shows.
PROMPTS = {"description": "请详细描述这张图片。", "caption": "用一句话描述这张图片。"}
YES, NO = "有", "没有"
_POPE_TOKENS = 24  # a yes or no and the sentence after it

Row = dict[str, Any]


def scored_answers(
    answerer: Answerer, rows: Sequence[Row], split: str, task: str, max_new_tokens: int, label: str
) -> tuple[list[TextScore], list[Row]]:
    """Each scene's answer to one prompt, scored, and as a row with a reference text beside it."""
    prompt = PROMPTS[task]
    questions = [Question(number, prompt) for number in range(len(rows))]
    answers = answerer.answer(questions, load_features(split), max_new_tokens, f"{label} {split} {task}")
    scores, written = [], []
    for row, answer in zip(rows, answers, strict=True):
        scores.append(score_text(answer, Scene.from_json(row["scene"])))
        reference = next("".join(text["answer"]) for text in row["texts"] if text["task"] == task)
        written.append(text_row(scores[-1], split, task, prompt, reference))
    return scores, written


def pope_answers(answerer: Answerer, rows: Sequence[Row], label: str) -> list[PopeAnswer]:
    asked = [(number, text) for number, row in enumerate(rows) for text in row["texts"] if text["task"] in POPE_TASKS]
    questions = [Question(number, text["question"]) for number, text in asked]
    features = load_features("test")
    answers = answerer.answer(questions, features, _POPE_TOKENS, f"{label} yes/no")
    margins = answerer.margins(questions, features, YES, NO, f"{label} margins")
    return [
        PopeAnswer(rows[number]["id"], text["task"], text["question"], answer, text["kind"], text["expected"], margin)
        for (number, text), answer, margin in zip(asked, answers, margins, strict=True)
    ]


def evaluate(name: str, params: Params) -> None:
    model = load_checkpoint(name).to("cuda" if torch.cuda.is_available() else "cpu")
    parameters, vision_parameters = count_parameters(model)
    answerer = Answerer(model, load_tokenizer(), params.evaluate.batch_size)
    columns = ["id", "scene", "texts"]
    test = list(read_rows("test", columns, params.evaluate.scenes))
    fixed = list(read_rows("fixed", columns))
    scores: dict[str, list[TextScore]] = {}
    written: list[Row] = []
    shown: list[tuple[str, str]] = []
    for task in PROMPTS:
        scores[task], rows = scored_answers(answerer, test, "test", task, params.evaluate.max_new_tokens, name)
        seen, fixed_rows = scored_answers(answerer, fixed, "fixed", task, params.evaluate.max_new_tokens, name)
        written += rows + fixed_rows
        shown = shown or [(score.scene.id, score.text) for score in seen]
    pope = pope_answers(answerer, test, name)
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
    with whole_folder(EVALUATIONS / name) as folder:
        metrics = {
            "checkpoint": name,
            "parameters": parameters,
            "parameters_vision": vision_parameters,
            "scenes": len(test),
            "intervals": {metric: interval_row(interval) for metric, interval in intervals.items()},
        }
        write_json(folder / "metrics.json", metrics)
        lines = [json.dumps(row, ensure_ascii=False) for row in [*written, *map(pope_row, pope)]]
        write_text(folder / "answers.jsonl", "\n".join(lines) + "\n")
        write_text(folder / "samples.txt", samples_text(parameters, shown))
    values = {metric: intervals[metric].value for metric in ("chair_i", "precision", "recall", "pope_accuracy")}
    print(f"{name}: " + ", ".join(f"{metric} {value:.3f}" for metric, value in values.items()))


def main() -> None:
    params = load_params()
    names = ["pretrain", *(f"sft-{phase}" for phase in params.sft.phases)]
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        raise InputError(f"usage: python -m stages.evaluate CHECKPOINT, one of {', '.join(names)}")
    evaluate(sys.argv[1], params)


if __name__ == "__main__":
    run_stage(main)
