"""Stage encode: patch features of every picture, once, because the vision encoder stays frozen; or none, where the
disk does not hold them (encode.cache).

in: data/prepared, data/vision; params encode. out: data/features
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from tqdm import tqdm
from transformers import CLIPVisionModel

from stages.common.errors import InputError, run_stage
from stages.common.features import features_path
from stages.common.files import free_bytes, need_model, partial_of, whole_folder, write_text
from stages.common.launch import is_first, own_device, rank_of, spread, wait_for_all
from stages.common.memory import keep_memory
from stages.common.params import load_params
from stages.common.paths import FEATURES, VISION
from stages.common.pictures import pixel_values
from stages.common.precision import use_bf16
from stages.common.shards import has_split, picture_starts, read_images

SPLITS = ("pretrain", "train", "validation", "test", "fixed")


@contextmanager
def shared_folder(target: Path) -> Iterator[Path]:
    """``whole_folder`` for all processes of the stage: there when they enter, whole when all of them are done."""
    with whole_folder(target) if is_first() else nullcontext(partial_of(target)) as folder:
        wait_for_all()
        yield folder
        wait_for_all()


def features_array(model: CLIPVisionModel, count: int, path: Path) -> np.memmap:
    """[pictures, P, D] float16 on the disk; the first process makes it."""
    if is_first():
        open_memmap(path, "w+", "float16", (count, _patches(model), model.config.hidden_size)).flush()
    wait_for_all()
    return open_memmap(path, "r+")


@torch.inference_mode()
def write_features(model: CLIPVisionModel, split: str, count: int, batch_size: int, bf16: bool, path: Path) -> None:
    """The last hidden state before the post layer norm, without the class token.

    Processes take batches in turn, which are the same ones however many they are.
    """
    array = features_array(model, count, path)
    rank, processes = rank_of()
    images = read_images(split)
    batches = enumerate(iter(lambda: list(islice(images, batch_size)), []))
    with tqdm(total=count, unit="picture", desc=f"encode {split}", disable=not is_first()) as bar:
        for number, batch in batches:
            if number % processes == rank:
                with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                    pixels = pixel_values(batch, model.config.image_size).to(model.device)
                    seen = model(pixel_values=pixels).last_hidden_state
                array[number * batch_size :][: len(batch)] = seen[:, 1:].half().cpu().numpy()
            bar.update(len(batch))
    array.flush()


def _patches(model: CLIPVisionModel) -> int:
    return (model.config.image_size // model.config.patch_size) ** 2


def main() -> None:
    params = load_params()
    if not params.encode.cache:
        with shared_folder(FEATURES) as folder:
            write_text(folder / "README.md", "encode.cache is off: pictures are encoded in every step instead.\n")
        return
    need_model(VISION, "vision")
    keep_memory()
    model = CLIPVisionModel.from_pretrained(VISION, local_files_only=True).to(own_device()).eval()
    counts = {split: int(picture_starts(split)[-1]) for split in SPLITS if has_split(split)}
    pictures, width = sum(counts.values()), model.config.hidden_size
    needed = pictures * _patches(model) * width * 2
    if is_first():
        print(
            f"encode: {pictures} pictures, {_patches(model)} x {width} numbers each, in 16 bit: {needed / 1e9:.2f} GB",
            flush=True,
        )
    if needed > free_bytes(FEATURES.parent):
        raise InputError(
            f"{FEATURES} needs {needed / 1e9:.1f} GB and the disk has {free_bytes(FEATURES.parent) / 1e9:.1f} GB free: "
            "set encode.cache to false, so that pictures are encoded in every step, or lower data.train_scenes or "
            "data.max_rows, or free some space"
        )
    bf16 = use_bf16(params.train.precision)
    with shared_folder(FEATURES) as folder:
        for split, count in counts.items():
            write_features(model, split, count, params.encode.batch_size, bf16, features_path(split, folder))


if __name__ == "__main__":
    run_stage(spread(main, "stages.encode"))
