"""Checkpoint directories: ordinary transformers ones, model and processor together."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from model.vlm.modeling import VlmForConditionalGeneration
from model.vlm.processing import build_processor
from stages.common.config.loop import TokenLoopParams
from stages.common.core.files import atomic_directory, require_model
from stages.common.core.paths import CHECKPOINTS
from stages.common.core.provenance import Provenance, write_provenance


def checkpoint_path(name: str) -> Path:
    return CHECKPOINTS / name


def save_checkpoint(
    model: VlmForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    weights: dict[str, Tensor] | None = None,
    epochs: Sequence[Path] = (),
    provenance: Provenance | None = None,
) -> None:
    """Model (its own ``weights`` or the given ones), processor and, where it was trained here, ``provenance``; in
    subfolders the checkpoints that were kept after earlier ``epochs``."""
    with atomic_directory(folder) as partial:
        model.save_pretrained(partial, state_dict=weights)
        build_processor(tokenizer, model.config).save_pretrained(partial)
        if provenance is not None:
            write_provenance(partial, provenance)
        for epoch in epochs:
            shutil.copytree(epoch, partial / epoch.name)


def epoch_saver(
    model: VlmForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, loop: TokenLoopParams
) -> Callable[[Path, dict[str, Tensor] | None, Provenance], None] | None:
    """The function that saves a checkpoint after an epoch; None where ``loop`` does not require one."""
    if loop.save_strategy == "end":
        return None
    return lambda folder, weights, provenance: save_checkpoint(model, tokenizer, folder, weights, provenance=provenance)


def epoch_checkpoints(name: str) -> list[str]:
    """Names of the checkpoints after earlier epochs of a training run, in order: pretrain/epoch-1, ..."""
    folders = checkpoint_path(name).glob("epoch-*")
    return [f"{name}/{folder.name}" for folder in sorted(folders, key=lambda path: int(path.name.split("-")[1]))]


def load_checkpoint(name: str) -> VlmForConditionalGeneration:
    """Raises InputError where the stage that makes it has not run yet."""
    folder = checkpoint_path(name)
    stage = name if name == "pretrain" else name.replace("sft-", "sft@") if "sft-" in name else f"convert@{name}"
    require_model(folder, stage)
    return VlmForConditionalGeneration.from_pretrained(folder, local_files_only=True)
