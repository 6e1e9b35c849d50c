"""Stage evaluate@checkpoint: answers for test scenes, and what is right in them: `python -m stages.evaluate NAME`.

in: data/{prepared,tokenizer,features}, the checkpoint; params seed, data, encode.cache, evaluate.
out: reports/evaluation/<checkpoint>/{metrics.json, resamples.parquet, answers.jsonl, samples.txt}, and the same in
epoch-<number>/ for each checkpoint that was kept after an earlier epoch
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.vlm.modeling import count_parameters
from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory, write_json, write_text
from stages.common.core.memory import reuse_memory
from stages.common.core.paths import EVALUATIONS
from stages.common.core.stage import run_stage
from stages.common.data.chat import load_tokenizer
from stages.common.data.shards import read_rows
from stages.common.tracking.evaluations import log_evaluation
from stages.common.training.checkpoints import epoch_checkpoints, load_checkpoint
from stages.evaluate.answers import Answerer
from stages.evaluate.dialogues import evaluate_dialogues
from stages.evaluate.scenes import evaluate_scenes
from stages.evaluate.score.texts import samples_text

RESAMPLES = "resamples.parquet"  # a column per figure, a row per resample: the same scenes for every checkpoint
# In the terminal, where there are such figures.
_TOLD = ("loss", "chair_i", "precision", "recall", "pope_accuracy", "swap_gap_object", "length")


def evaluate(name: str, params: Params, folder: Path) -> None:
    model = load_checkpoint(name).to("cuda" if torch.cuda.is_available() else "cpu")
    parameters, vision_parameters = count_parameters(model)
    answerer = Answerer(model, load_tokenizer(), params.evaluate.batch_size)
    judge = evaluate_scenes if params.data.source == "world" else evaluate_dialogues
    scenes, estimates, series, rows, shown = judge(answerer, params, name)
    metrics = {
        "checkpoint": name,
        "parameters": parameters,
        "parameters_vision": vision_parameters,
        "scenes": scenes,
        "intervals": {metric: estimate.row() for metric, estimate in estimates.items()},
        "series": {along: [point.row() for point in points] for along, points in series.items()},
    }
    write_json(folder / "metrics.json", metrics)
    along = {
        f"{name}/{point.at}/{metric}": estimate
        for name, points in series.items()
        for point in points
        for metric, estimate in point.estimates.items()
    }
    resampled = {name: each.resampled.astype(np.float32) for name, each in (estimates | along).items()}
    pq.write_table(pa.table({name: column for name, column in resampled.items() if len(column)}), folder / RESAMPLES)
    write_text(folder / "answers.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_text(folder / "samples.txt", samples_text(parameters, shown))
    fixed = [row for row in rows if row["split"] == "fixed"]
    pictures = {row["id"]: row["images"][0]["bytes"] for row in read_rows("fixed", ["id", "images"])}
    sizes = {"total": parameters + vision_parameters, "vision": vision_parameters}
    log_evaluation(name, params, {"parameters": sizes}, metrics["intervals"], fixed, pictures)
    print(f"{name}: " + ", ".join(f"{metric} {estimates[metric].value:.3f}" for metric in _TOLD if metric in estimates))


def main() -> None:
    params = load_params()
    names = params.checkpoints
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        raise InputError(f"usage: python -m stages.evaluate CHECKPOINT, one of {', '.join(names)}")
    name = sys.argv[1]
    reuse_memory()
    with atomic_directory(EVALUATIONS / name) as folder:
        for epoch in epoch_checkpoints(name):
            evaluate(epoch, params, folder / epoch.removeprefix(f"{name}/"))
        evaluate(name, params, folder)


if __name__ == "__main__":
    run_stage(main)
