"""Stage encode: patch features of every picture, once, because the vision encoder stays frozen; or none, where the
disk is too small for them (encode.cache). And their mean over train pictures, which the evaluation uses as a blind
picture.

in: data/prepared, data/vision; params encode. out: data/features, data/mean_features.npy
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from tqdm import tqdm
from transformers import CLIPVisionModel

from stages.common.config.params import load_params
from stages.common.core.disk import format_size, missing_space
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory, partial_path, require_model, write_text
from stages.common.core.memory import reuse_memory
from stages.common.core.paths import FEATURES, MEAN_FEATURES, VISION
from stages.common.core.processes import (
    broadcast,
    default_device,
    is_main_process,
    rank_and_world_size,
    wait_for_everyone,
)
from stages.common.core.stage import run_stage
from stages.common.data.features import features_path
from stages.common.data.pictures import pixel_values
from stages.common.data.shards import has_split, picture_starts, read_images
from stages.common.training.launch import run_distributed
from stages.common.training.precision import use_bf16

SPLITS = ("pretrain", "train", "validation", "test", "fixed")
_INSTEAD = "set encode.cache to false to run the vision encoder in every step instead, or free some space"


@contextmanager
def shared_directory(target: Path) -> Iterator[Path]:
    """``atomic_directory`` for all processes, which exists when they enter and is complete when all have left."""
    with atomic_directory(target) if is_main_process() else nullcontext(partial_path(target)) as folder:
        try:
            wait_for_everyone()
            yield folder
            wait_for_everyone()
        except BaseException:
            # Where one process has died, the launcher ends the others: that must not interrupt the removal.
            with undisturbed():
                if is_main_process():
                    shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def undisturbed() -> Iterator[None]:
    """SIGTERM and SIGINT are ignored inside the block."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def create_arrays(shapes: Mapping[str, tuple[int, int, int]], folder: Path) -> str | None:
    """Empty files for the features of every split; an error message if the disk is full before they have their size.

    Their blocks are allocated at once: in sparse files, a full disk would kill the process that writes to them.
    """
    for split, shape in shapes.items():
        path = features_path(split, folder)
        try:
            open_memmap(path, "w+", "float16", shape).flush()
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            return f"{FEATURES} cannot be written completely: {error.strerror}"
    return None


def write_features(model: CLIPVisionModel, split: str, batch_size: int, bf16: bool, path: Path) -> None:
    """Processes take batches in turn. The batches do not depend on the number of processes."""
    array = open_memmap(path, "r")
    rank, processes = rank_and_world_size()
    with (
        path.open("r+b") as file,  # not the map itself: machines that share a folder would overwrite each other's pages
        tqdm(total=len(array), unit=" pictures", desc=f"encode {split}", disable=not is_main_process()) as bar,
    ):
        for number, batch in enumerate(batched(read_images(split), batch_size)):
            if number % processes == rank:
                file.seek(array.offset + number * batch_size * array.strides[0])
                file.write(features_of(model, batch, bf16).tobytes())
            bar.update(len(batch))


@torch.inference_mode()
def features_of(model: CLIPVisionModel, images: Sequence[dict[str, Any]], bf16: bool) -> np.ndarray:
    """[N, P, D] float16: the last hidden state before the post layer norm, without the class token."""
    pixels = pixel_values(images, model.config.image_size, torch.get_num_threads()).to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        seen = model(pixel_values=pixels).last_hidden_state
    return seen[:, 1:].half().cpu().numpy()


def mean_features(parts: Iterable[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Mean of pictures' features, ``parts`` [N, P, D] each, as ``shape`` [P, D] float32; 0 where there are none."""
    total, count = np.zeros(shape), 0
    for part in parts:
        total += part.sum(0, dtype=np.float64)
        count += len(part)
    return (total / max(count, 1)).astype(np.float32)


def write_mean(mean: np.ndarray) -> None:
    partial = partial_path(MEAN_FEATURES)
    with partial.open("wb") as file:
        np.save(file, mean, allow_pickle=False)
    os.replace(partial, MEAN_FEATURES)


def batched(images: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    left = iter(images)
    while batch := list(islice(left, size)):
        yield batch


def main() -> None:
    params = load_params()
    require_model(VISION, "vision")
    reuse_memory()
    model = CLIPVisionModel.from_pretrained(VISION, local_files_only=True).to(default_device()).eval()
    patches, width = (model.config.image_size // model.config.patch_size) ** 2, model.config.hidden_size
    # Each may have measured another number format as the faster one.
    bf16 = broadcast(use_bf16(params.train.precision))
    settings = params.encode
    if not settings.cache:
        with shared_directory(FEATURES) as folder:
            if is_main_process():
                write_text(folder / "README.md", "encode.cache is off: pictures are encoded in every step instead.\n")
        if is_main_process():
            images = batched(islice(read_images("train"), settings.mean_pictures), settings.batch_size)
            write_mean(mean_features((features_of(model, batch, bf16) for batch in images), (patches, width)))
        return
    shapes = {split: (int(picture_starts(split)[-1]), patches, width) for split in SPLITS if has_split(split)}
    needed = 2 * sum(count * patches * width for count, _, _ in shapes.values())
    trouble = None
    if is_main_process():
        pictures = sum(count for count, _, _ in shapes.values())
        print(
            f"encode: {pictures:,} pictures, {patches} patches of {width} numbers in 16 bit: {format_size(needed)}",
            flush=True,
        )
        shutil.rmtree(partial_path(FEATURES), ignore_errors=True)  # of a run that was killed
        trouble = missing_space(FEATURES, needed)
    trouble = broadcast(trouble)
    if trouble is not None:
        raise InputError(f"{trouble}: {_INSTEAD}")
    with shared_directory(FEATURES) as folder:
        trouble = broadcast(create_arrays(shapes, folder) if is_main_process() else None)
        if trouble is not None:
            raise InputError(f"{trouble}: {_INSTEAD}")
        for split in shapes:
            write_features(model, split, settings.batch_size, bf16, features_path(split, folder))
    if is_main_process():
        train = np.load(features_path("train"), mmap_mode="r", allow_pickle=False)[: settings.mean_pictures]
        parts = (train[start : start + settings.batch_size] for start in range(0, len(train), settings.batch_size))
        write_mean(mean_features(parts, (patches, width)))


def end_cleanly() -> None:
    """Ended from outside, or because another process died, the stage leaves no half-made features behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


if __name__ == "__main__":
    end_cleanly()
    run_stage(run_distributed(main, "stages.encode"))
