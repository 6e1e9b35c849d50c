"""Stage evaluate@checkpoint: answers for test scenes, and what is right in them: `python -m stages.evaluate NAME`.

in: data/{prepared,tokenizer,features}, the checkpoint; params seed, data, encode.cache, evaluate.
out: reports/evaluation/<checkpoint>/{metrics.json, answers.jsonl, samples.txt}, and the same in epoch-<number>/ for
each checkpoint that was kept after an earlier epoch
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from model.modeling import count_parameters
from stages.common.chat import load_tokenizer
from stages.common.checkpoints import epoch_checkpoints, load_checkpoint
from stages.common.errors import InputError, run_stage
from stages.common.files import whole_folder, write_json, write_text
from stages.common.params import Params, load_params
from stages.common.paths import EVALUATIONS
from stages.evaluate.answers import Answerer
from stages.evaluate.dialogues import evaluate_dialogues
from stages.evaluate.metrics import interval_row, samples_text
from stages.evaluate.scenes import evaluate_scenes

_TOLD = ("loss", "chair_i", "precision", "recall", "pope_accuracy", "length")  # in the terminal, where there is one


def evaluate(name: str, params: Params, folder: Path) -> None:
    model = load_checkpoint(name).to("cuda" if torch.cuda.is_available() else "cpu")
    parameters, vision_parameters = count_parameters(model)
    answerer = Answerer(model, load_tokenizer(), params.evaluate.batch_size)
    judge = evaluate_scenes if params.data.source == "world" else evaluate_dialogues
    scenes, intervals, rows, shown = judge(answerer, params, name)
    metrics = {
        "checkpoint": name,
        "parameters": parameters,
        "parameters_vision": vision_parameters,
        "scenes": scenes,
        "intervals": {metric: interval_row(interval) for metric, interval in intervals.items()},
    }
    write_json(folder / "metrics.json", metrics)
    write_text(folder / "answers.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_text(folder / "samples.txt", samples_text(parameters, shown))
    print(f"{name}: " + ", ".join(f"{metric} {intervals[metric].value:.3f}" for metric in _TOLD if metric in intervals))


def main() -> None:
    params = load_params()
    names = params.checkpoints
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        raise InputError(f"usage: python -m stages.evaluate CHECKPOINT, one of {', '.join(names)}")
    name = sys.argv[1]
    with whole_folder(EVALUATIONS / name) as folder:
        for epoch in epoch_checkpoints(name):
            evaluate(epoch, params, folder / epoch.removeprefix(f"{name}/"))
        evaluate(name, params, folder)


if __name__ == "__main__":
    run_stage(main)
