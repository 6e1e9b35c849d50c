"""Pictures as pixel values, the vision encoder's input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from stages.common.data.shards import decode_image


def image_processor(image_size: int) -> CLIPImageProcessorPil:
    """CLIP's preprocessing for pictures of any size: resize, crop, scale, normalise.

    The same as in model.vlm.processing, so that stages vision and encode do not depend on the model.
    """
    return CLIPImageProcessorPil(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )


def pixel_values(images: Sequence[dict[str, Any]], image_size: int, threads: int = 1) -> Tensor:
    """Pixel values [B, 3, S, S] of encoded pictures of any size, S = ``image_size``; equal to ``image_processor``'s.

    Pictures that are S pixels square already (data.resize) are normalised as one batch, which is faster.
    """
    decoded = [picture for part in _in_threads(_decode, images, threads) for picture in part]
    if any(picture.size != (image_size, image_size) for picture in decoded):
        process = image_processor(image_size)
        return torch.cat(_in_threads(lambda part: process(part, return_tensors="pt")["pixel_values"], decoded, threads))
    return torch.cat(_in_threads(_normalised, decoded, threads))


def _in_threads(function: Callable[[Sequence[Any]], Any], items: Sequence[Any], threads: int) -> list[Any]:
    """``function`` of each thread's part of ``items``, in order; Pillow and torch release the interpreter lock."""
    if threads == 1:
        return [function(items)]
    size = max(1, -(-len(items) // threads))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, [items[start : start + size] for start in range(0, len(items), size)]))


def _decode(images: Sequence[dict[str, Any]]) -> list[Image.Image]:
    return [decode_image(image) for image in images]


def _normalised(pictures: Sequence[Image.Image]) -> Tensor:
    """[B, 3, S, S] from pictures of one size."""
    # Channels are moved first while pixels are bytes: a quarter of the memory traffic.
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (pixels / 255.0 - mean) / std
