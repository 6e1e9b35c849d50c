"""Pictures as the vision encoder takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from stages.common.shards import decode_image


def image_processor(image_size: int) -> CLIPImageProcessorPil:
    """CLIP's preprocessing for pictures of any size: resize, crop, scale, normalise."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )


def pixel_values(images: Sequence[dict[str, Any]], image_size: int) -> Tensor:
    """[B, 3, S, S] from pictures as shards hold them, of any size: the same numbers as ``image_processor``'s.

    Pictures that are S pixels square already, as a resizing stage prepare leaves them, take one step for the batch.
    """
    decoded = [decode_image(image) for image in images]
    if any(picture.size != (image_size, image_size) for picture in decoded):
        return image_processor(image_size)(decoded, return_tensors="pt")["pixel_values"]
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in decoded]))
    mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
    return ((pixels / 255.0 - mean) / std).permute(0, 3, 1, 2).contiguous()
