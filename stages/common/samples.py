"""Training samples as token ids: where they are kept, and how they become batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stages.common.chat import IGNORED
from stages.common.errors import InputError

Sample = tuple[int, list[int], list[int]]  # row of the picture, input_ids, labels

# Sequences are padded to a multiple of this. On a CPU every new shape of a matrix product costs a compiled kernel, and
# with as many shapes as batches a step took 190 ms after 400 steps where it had taken 130 at first; with few, 105.
_LENGTH_STEP = 16
_SCHEMA = pa.schema(
    [
        ("row", pa.int32()),  # number of the picture in its split
        ("input_ids", pa.list_(pa.int32())),  # the picture is one placeholder here, however many tokens it will take
        ("labels", pa.list_(pa.int32())),
    ]
)


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    columns = [list(column) for column in zip(*samples, strict=True)] if samples else [[], [], []]
    pq.write_table(pa.table(columns, schema=_SCHEMA), path, compression="zstd")


def read_samples(path: Path) -> list[Sample]:
    """Raises InputError where the stage curriculum has not run yet."""
    if not path.exists():
        raise InputError(f"{path} is missing: run `dvc repro curriculum` first")
    table = pq.read_table(path, schema=_SCHEMA)
    return list(zip(*(table.column(name).to_pylist() for name in ("row", "input_ids", "labels")), strict=True))


def count_targets(samples: Sequence[Sample]) -> int:
    return sum(sum(label != IGNORED for label in labels) for _, _, labels in samples)


class SampleDataset(Dataset):
    """Samples with the features of their pictures. ``features`` [rows, P, D] may be memory-mapped; None: text only."""

    def __init__(
        self,
        samples: Sequence[Sample],
        features: np.ndarray | None,
        image_tokens: int,
        image_id: int,
    ) -> None:
        self._features = features
        self._samples = [
            (row, _expand(ids, ids, image_id, image_tokens), _expand(ids, labels, image_id, image_tokens))
            for row, ids, labels in samples
        ]

    @property
    def lengths(self) -> list[int]:
        """What each sample takes in a batch where it is the longest."""
        return [padded_length(len(ids)) for _, ids, _ in self._samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, ids, labels = self._samples[index]
        item: dict[str, Any] = {"input_ids": ids, "labels": labels}
        if self._features is not None:
            item["patch_features"] = self._features[row]
        return item


def _expand(ids: list[int], values: list[int], image_id: int, image_tokens: int) -> list[int]:
    """``values`` with the place of the picture's placeholder in ``ids`` repeated ``image_tokens`` times."""
    if image_id not in ids:
        return values
    at = ids.index(image_id)
    return values[:at] + [values[at]] * image_tokens + values[at + 1 :]


def check_positions(dataset: SampleDataset, positions: int) -> None:
    """Raises InputError if a sample is longer than the decoder's ``positions``."""
    longest = max(dataset.lengths)
    if longest > positions:
        raise InputError(
            f"params.yaml: language.max_position_embeddings: a sample takes {longest} positions, image tokens "
            f"included, and the decoder has {positions}; raise it"
        )


def padded_length(length: int) -> int:
    return -(-length // _LENGTH_STEP) * _LENGTH_STEP


class PadCollate:
    """Right padding to the batch's padded length. Causal attention never looks to the right, so no mask is needed."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        longest = padded_length(max(len(item["input_ids"]) for item in items))
        batch = {
            "input_ids": self._pad([item["input_ids"] for item in items], longest, self._pad_id),
            "labels": self._pad([item["labels"] for item in items], longest, IGNORED),
        }
        if "patch_features" in items[0]:
            batch["patch_features"] = torch.from_numpy(np.stack([item["patch_features"] for item in items])).float()
        return batch

    @staticmethod
    def _pad(rows: list[list[int]], longest: int, value: int) -> Tensor:
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
