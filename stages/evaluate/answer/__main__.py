"""Stage answer@checkpoint: what a checkpoint writes about test pictures: `python -m stages.evaluate.answer NAME`.

in: data/{prepared,tokenizer,features}, the checkpoint; params data.source, encode.cache,
evaluate.{scenes,max_new_tokens,batch_size}.
out: reports/answers/<checkpoint>/ (see stages/evaluate/files.py), and the same in epoch-<number>/ for each checkpoint
that was kept after an earlier epoch, which answers about validation scenes, so that test scenes choose no epoch
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from model.vlm.modeling import count_parameters
from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory
from stages.common.core.memory import reuse_memory
from stages.common.core.provenance import FILE, Provenance, provenance
from stages.common.core.stage import run_stage
from stages.common.data.chat import load_tokenizer
from stages.common.training.checkpoints import checkpoint_path, epoch_checkpoints, load_checkpoint
from stages.evaluate.answer.answerer import Answerer
from stages.evaluate.answer.dialogues import answer_dialogues
from stages.evaluate.answer.scenes import answer_scenes
from stages.evaluate.files import answers_folder, write_model, write_provenance


def answer(name: str, params: Params, folder: Path, split: str) -> None:
    model = load_checkpoint(name).to("cuda" if torch.cuda.is_available() else "cpu")
    answerer = Answerer(model, load_tokenizer(), params.evaluate.batch_size)
    write_answers_of = answer_scenes if params.data.source == "world" else answer_dialogues
    write_answers_of(answerer, params, folder, name, split)
    write_model(folder, name, *count_parameters(model))
    write_provenance(folder, training_provenance(name), provenance("fp32", compiled=False, processes=1))


def training_provenance(name: str) -> Provenance | None:
    """What the checkpoint's folder says of how it was trained; None for a finished model, which was fetched."""
    path = checkpoint_path(name) / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def main() -> None:
    params = load_params()
    names = params.checkpoints
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        raise InputError(f"usage: python -m stages.evaluate.answer CHECKPOINT, one of {', '.join(names)}")
    name = sys.argv[1]
    reuse_memory()
    with atomic_directory(answers_folder(name)) as folder:
        for epoch in epoch_checkpoints(name):
            epoch_folder = folder / epoch.removeprefix(f"{name}/")
            epoch_folder.mkdir()
            answer(epoch, params, epoch_folder, "validation")
        answer(name, params, folder, "test")


if __name__ == "__main__":
    run_stage(main)
