"""Stage encode: patch features of every picture, once, because the vision encoder stays frozen; or none, where the
disk does not hold them (encode.cache).

in: data/prepared, data/vision; params encode. out: data/features
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path

import torch
from numpy.lib.format import open_memmap
from tqdm import tqdm
from transformers import CLIPVisionModel

from stages.common.config.params import load_params
from stages.common.core.disk import format_size, missing_space
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory, partial_path, require_model, write_text
from stages.common.core.memory import reuse_memory
from stages.common.core.paths import FEATURES, VISION
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
    """``atomic_directory`` for all processes of the stage: there when they enter, whole when all of them are done."""
    with atomic_directory(target) if is_main_process() else nullcontext(partial_path(target)) as folder:
        try:
            wait_for_everyone()
            yield folder
            wait_for_everyone()
        except BaseException:
            # Where one process died, the others are ended, too: that must not cut the tidying up short.
            with undisturbed():
                if is_main_process():
                    shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that would end the process are dropped."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def create_arrays(shapes: Mapping[str, tuple[int, int, int]], folder: Path) -> str | None:
    """Empty files for the features of every split; one sentence, if the disk is full before they have their size.

    Without blocks of their own they would be full of holes, and a full disk would kill the process that fills them.
    """
    for split, shape in shapes.items():
        path = features_path(split, folder)
        try:
            open_memmap(path, "w+", "float16", shape).flush()
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            return f"{FEATURES} cannot be made whole: {error.strerror}"
    return None


@torch.inference_mode()
def write_features(model: CLIPVisionModel, split: str, batch_size: int, bf16: bool, path: Path) -> None:
    """The last hidden state before the post layer norm, without the class token.

    Processes take batches in turn, which are the same ones however many they are.
    """
    array = open_memmap(path, "r")
    rank, processes = rank_and_world_size()
    images = read_images(split)
    batches = enumerate(iter(lambda: list(islice(images, batch_size)), []))
    with (
        path.open("r+b") as file,  # not the map itself: machines that share a folder would overwrite each other's pages
        tqdm(total=len(array), unit=" pictures", desc=f"encode {split}", disable=not is_main_process()) as bar,
    ):
        for number, batch in batches:
            if number % processes == rank:
                pixels = pixel_values(batch, model.config.image_size, torch.get_num_threads()).to(model.device)
                with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                    seen = model(pixel_values=pixels).last_hidden_state
                file.seek(array.offset + number * batch_size * array.strides[0])
                file.write(seen[:, 1:].half().cpu().numpy().tobytes())
            bar.update(len(batch))


def main() -> None:
    params = load_params()
    if not params.encode.cache:
        with shared_directory(FEATURES) as folder:
            if is_main_process():
                write_text(folder / "README.md", "encode.cache is off: pictures are encoded in every step instead.\n")
        return
    require_model(VISION, "vision")
    reuse_memory()
    model = CLIPVisionModel.from_pretrained(VISION, local_files_only=True).to(default_device()).eval()
    patches, width = (model.config.image_size // model.config.patch_size) ** 2, model.config.hidden_size
    shapes = {split: (int(picture_starts(split)[-1]), patches, width) for split in SPLITS if has_split(split)}
    needed = 2 * sum(count * patches * width for count, _, _ in shapes.values())
    trouble, bf16 = None, use_bf16(params.train.precision)
    if is_main_process():
        pictures = sum(count for count, _, _ in shapes.values())
        print(
            f"encode: {pictures:,} pictures, {patches} patches of {width} numbers in 16 bit: {format_size(needed)}",
            flush=True,
        )
        shutil.rmtree(partial_path(FEATURES), ignore_errors=True)  # of a run that was killed
        trouble = missing_space(FEATURES, needed)
    trouble, bf16 = broadcast((trouble, bf16))  # each may have measured another number format as the faster one
    if trouble is not None:
        raise InputError(f"{trouble}: {_INSTEAD}")
    with shared_directory(FEATURES) as folder:
        trouble = broadcast(create_arrays(shapes, folder) if is_main_process() else None)
        if trouble is not None:
            raise InputError(f"{trouble}: {_INSTEAD}")
        for split in shapes:
            write_features(model, split, params.encode.batch_size, bf16, features_path(split, folder))


def end_cleanly() -> None:
    """Ended from outside, or because another process died, the stage leaves no half-made features behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


if __name__ == "__main__":
    end_cleanly()
    run_stage(run_distributed(main, "stages.encode"))
