"""Batches as packs: the samples of a batch concatenated in one sequence, for packed attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from stages.common.core.errors import InputError
from stages.common.core.processes import rank_and_world_size
from stages.common.data.chat import IGNORED
from stages.common.data.features import Pictures
from stages.common.data.samples import Sample

_PADDING = 16  # positions behind the last sample, at least; packed attention needs one
_LENGTH_STEP = 128  # longer packs are padded to a multiple of this, so that few kernels are compiled


class SampleDataset(Dataset):
    """Samples with the model inputs of their pictures; ``pictures`` None: texts only."""

    def __init__(self, samples: Sequence[Sample], pictures: Pictures | None, image_tokens: int, image_id: int) -> None:
        self._samples, self._pictures = samples, pictures
        self._image_tokens, self._image_id = image_tokens, image_id

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each sample, image tokens included."""
        more = self._image_tokens - 1
        return [len(ids) + more * int((np.asarray(ids) == self._image_id).sum()) for _, ids, _ in self._samples]

    @cached_property
    def targets(self) -> list[int]:
        """Target tokens of each sample; the first token is none, because nothing in its sample predicts it."""
        return [int((np.asarray(labels)[1:] != IGNORED).sum()) for _, _, labels in self._samples]

    @property
    def decodes(self) -> bool:
        """Whether pictures are decoded at every access, which is slow."""
        return self._pictures is not None and self._pictures.key == "pixel_values"

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The sample with each image placeholder repeated once per image token; at -1 - i sample i without targets."""
        pictures, ids, labels = (np.asarray(part) for part in self._samples[max(index, -1 - index)])
        if index < 0:
            labels = np.full_like(labels, IGNORED)
        times = np.where(ids == self._image_id, self._image_tokens, 1)
        item: dict[str, Any] = {"input_ids": ids.repeat(times), "labels": labels.repeat(times)}
        if self._pictures is not None:
            item[self._pictures.key] = self._pictures[pictures]
        return item


def check_positions(dataset: SampleDataset, positions: int) -> None:
    """Raises InputError if a sample is longer than the decoder's ``positions``."""
    longest = max(dataset.lengths, default=0)
    if longest > positions:
        raise InputError(
            f"params.yaml: language.max_position_embeddings: a sample takes {longest} positions, image tokens "
            f"included, and the decoder has {positions}; raise it"
        )


def pack_length(batch_tokens: int | None) -> int | None:
    """The tokens of each process's part of a batch."""
    return None if batch_tokens is None else -(-batch_tokens // rank_and_world_size()[1])


class PackCollate:
    """Samples -> one pack, with transformers' names: input_ids, labels and position_ids [1, N]; cu_seq_lens_q [S + 1],
    padded by repeating its last value, the bounds of the samples; max_length_q, an upper bound of their lengths.

    N is ``length``, or more if the samples need it, plus _PADDING. Model inputs of pictures [all pictures, ...] are in
    the order of their placeholders; a pack without pictures has none.
    """

    def __init__(self, pad_id: int, length: int | None) -> None:
        self._pad_id, self._length = pad_id, length or 0

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        lengths = [len(item["input_ids"]) for item in items]
        ends = np.cumsum(lengths)
        total = self._length if ends[-1] <= self._length else -(-int(ends[-1]) // _LENGTH_STEP) * _LENGTH_STEP
        total += _PADDING
        ids = np.full(total, self._pad_id, np.int64)
        labels = np.full(total, IGNORED, np.int64)
        positions = np.arange(total) - ends[-1]  # the padding behind the samples counts from 0
        for end, item in zip(ends, items, strict=True):
            start = end - len(item["input_ids"])
            ids[start:end], labels[start:end] = item["input_ids"], item["labels"]
            labels[start] = IGNORED  # it would be predicted at the end of the previous sample
            positions[start:end] = np.arange(end - start)
        bounds = np.full(-(-(len(items) + 1) // _LENGTH_STEP) * _LENGTH_STEP, ends[-1], np.int32)
        bounds[0], bounds[1 : len(ends) + 1] = 0, ends
        batch = {
            "input_ids": torch.from_numpy(ids).unsqueeze(0),
            "labels": torch.from_numpy(labels).unsqueeze(0),
            "position_ids": torch.from_numpy(positions).unsqueeze(0),
            "cu_seq_lens_q": torch.from_numpy(bounds),
            "max_length_q": 1 << (max(lengths) - 1).bit_length(),  # power of two: few values to compile for
        }
        for key in ("patch_features", "pixel_values"):
            if key in items[0] and any(len(item[key]) for item in items):
                batch[key] = torch.from_numpy(np.concatenate([item[key] for item in items]))
        return batch
