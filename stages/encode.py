"""Stage encode: patch features of every picture, once, because the vision encoder stays frozen; or none, where the
disk does not hold them (encode.cache).

in: data/prepared, data/vision; params encode. out: data/features
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from numpy.lib.format import open_memmap
from tqdm import tqdm
from transformers import CLIPVisionModel

from stages.common.errors import InputError, run_stage
from stages.common.features import features_path
from stages.common.files import free_bytes, need_model, whole_folder, write_text
from stages.common.params import load_params
from stages.common.paths import FEATURES, VISION
from stages.common.pictures import pixel_values
from stages.common.precision import use_bf16
from stages.common.shards import has_split, picture_starts, read_images

SPLITS = ("pretrain", "train", "validation", "test", "fixed")


def batches_of(split: str, size: int) -> Iterator[list[dict[str, Any]]]:
    images = read_images(split)
    while batch := list(islice(images, size)):
        yield batch


@torch.inference_mode()
def write_features(model: CLIPVisionModel, split: str, count: int, batch_size: int, bf16: bool, path: Path) -> None:
    """The last hidden state before the post layer norm, without the class token: [pictures, P, D] float16."""
    patches = (model.config.image_size // model.config.patch_size) ** 2
    array = open_memmap(path, "w+", "float16", (count, patches, model.config.hidden_size))
    done = 0
    with tqdm(total=count, unit="picture", desc=f"encode {split}") as bar:
        for images in batches_of(split, batch_size):
            with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                pixels = pixel_values(images, model.config.image_size).to(model.device)
                seen = model(pixel_values=pixels).last_hidden_state
            array[done : done + len(images)] = seen[:, 1:].half().cpu().numpy()
            done += len(images)
            bar.update(len(images))
    array.flush()


def main() -> None:
    params = load_params()
    if not params.encode.cache:
        with whole_folder(FEATURES) as folder:
            write_text(folder / "README.md", "encode.cache is off: pictures are encoded in every step instead.\n")
        return
    need_model(VISION, "vision")
    model = (
        CLIPVisionModel.from_pretrained(VISION, local_files_only=True)
        .to("cuda" if torch.cuda.is_available() else "cpu")
        .eval()
    )
    counts = {split: int(picture_starts(split)[-1]) for split in SPLITS if has_split(split)}
    patches = (model.config.image_size // model.config.patch_size) ** 2
    needed = sum(counts.values()) * patches * model.config.hidden_size * 2
    print(f"encode: {sum(counts.values())} pictures, {needed / 1e9:.2f} GB of features", flush=True)
    if needed > free_bytes(FEATURES.parent):
        raise InputError(
            f"{FEATURES} needs {needed / 1e9:.1f} GB and the disk has {free_bytes(FEATURES.parent) / 1e9:.1f} GB free: "
            "set encode.cache to false, lower data.train_scenes or data.max_rows, or free some space"
        )
    with whole_folder(FEATURES) as folder:
        for split, count in counts.items():
            bf16 = use_bf16(params.train.precision)
            write_features(model, split, count, params.encode.batch_size, bf16, features_path(split, folder))


if __name__ == "__main__":
    run_stage(main)
