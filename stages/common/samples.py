"""Training samples as token ids: where they are kept, and how they become batches."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property
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
from stages.common.features import Pictures

Sample = tuple[Sequence[int], Sequence[int], Sequence[int]]  # numbers of its pictures, input_ids, labels

# Sequences are padded to a multiple of this. On a CPU every new shape of a matrix product costs a compiled kernel, and
# with as many shapes as batches a step took 190 ms after 400 steps where it had taken 130 at first; with few, 105.
_LENGTH_STEP = 16
_CHUNK = 100_000  # samples: an Arrow list array counts its numbers in 32 bits
_SCHEMA = pa.schema(
    [
        ("pictures", pa.list_(pa.int32())),  # their numbers in the split, in the order of their placeholders
        ("input_ids", pa.list_(pa.int32())),  # a picture is one placeholder here, however many tokens it will take
        ("labels", pa.list_(pa.int32())),
    ]
)


class Samples(Sequence[Sample]):
    """Many samples in little memory: each column is one run of numbers and the places where a sample starts."""

    def __init__(self, columns: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self._columns = columns  # (numbers, starts) of pictures, input_ids, labels

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Samples:
        numbers = [array("i") for _ in _SCHEMA]
        starts = [array("q", [0]) for _ in _SCHEMA]
        for sample in samples:
            for column, start, values in zip(numbers, starts, sample, strict=True):
                column.extend(values)
                start.append(len(column))
        return cls([(np.array(n, np.int32), np.array(s, np.int64)) for n, s in zip(numbers, starts, strict=True)])

    def __len__(self) -> int:
        return len(self._columns[0][1]) - 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return tuple(numbers[starts[index] : starts[index + 1]] for numbers, starts in self._columns)

    @property
    def target_tokens(self) -> int:
        return int((self._columns[2][0] != IGNORED).sum())

    def write(self, path: Path) -> None:
        columns = [
            pa.chunked_array([_lists(*column, first) for first in range(0, max(len(self), 1), _CHUNK)])
            for column in self._columns
        ]
        pq.write_table(pa.table(columns, schema=_SCHEMA), path, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> Samples:
        """Raises InputError where the stage curriculum has not run yet."""
        if not path.exists():
            raise InputError(f"{path} is missing: run `dvc repro curriculum` first")
        table = pq.read_table(path, schema=_SCHEMA)
        columns = []
        for name in _SCHEMA.names:
            chunks = table.column(name).chunks
            lengths = [chunk.value_lengths().to_numpy() for chunk in chunks]
            numbers = [chunk.flatten().to_numpy() for chunk in chunks]
            starts = np.concatenate([[0], np.cumsum(np.concatenate([[], *lengths]), dtype=np.int64)]).astype(np.int64)
            columns.append((np.concatenate([np.zeros(0, np.int32), *numbers]), starts))
        return cls(columns)


def _lists(numbers: np.ndarray, starts: np.ndarray, first: int) -> pa.ListArray:
    """Samples ``first`` and after of a column, a chunk of them."""
    starts = starts[first : first + _CHUNK + 1]
    return pa.ListArray.from_arrays((starts - starts[0]).astype(np.int32), numbers[starts[0] : starts[-1]])


def count_targets(labels: Sequence[int]) -> int:
    return int((np.asarray(labels) != IGNORED).sum())


def cut(sample: Sample, image_id: int, image_tokens: int, max_len: int) -> Sample:
    """What ``max_len`` tokens show of a sample, image tokens included. A picture is shown whole or not at all."""
    pictures, ids, labels = (np.asarray(part) for part in sample)
    placed = np.where(ids == image_id, image_tokens, 1).cumsum()
    whole = int(np.searchsorted(placed, max_len, side="right"))
    ids, labels = ids[:whole], labels[:whole]
    return pictures[: int((ids == image_id).sum())], ids, labels


class SampleDataset(Dataset):
    """Samples with what the model sees of their pictures; ``pictures`` None: text only."""

    def __init__(self, samples: Sequence[Sample], pictures: Pictures | None, image_tokens: int, image_id: int) -> None:
        self._samples, self._pictures = samples, pictures
        self._image_tokens, self._image_id = image_tokens, image_id

    @cached_property
    def lengths(self) -> list[int]:
        """What each sample takes in a batch where it is the longest."""
        return [padded_length(len(self._expanded(number)[1])) for number in range(len(self))]

    @property
    def decodes(self) -> bool:
        """Whether pictures are decoded at every access."""
        return self._pictures is not None and self._pictures.key == "pixel_values"

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pictures, ids, labels = self._expanded(index)
        item: dict[str, Any] = {"input_ids": ids, "labels": labels}
        if self._pictures is not None:
            item[self._pictures.key] = self._pictures[pictures]
        return item

    def _expanded(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The sample with each placeholder repeated once per image token."""
        pictures, ids, labels = (np.asarray(part) for part in self._samples[number])
        times = np.where(ids == self._image_id, self._image_tokens, 1)
        return pictures, ids.repeat(times), labels.repeat(times)


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
    """Right padding to the batch's padded length. Causal attention never looks to the right, so no mask is needed.

    Pictures of the batch stand in the order of their placeholders: [all pictures, ...]. A batch of texts has none.
    """

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        longest = padded_length(max(len(item["input_ids"]) for item in items))
        batch = {
            "input_ids": self._pad([item["input_ids"] for item in items], longest, self._pad_id),
            "labels": self._pad([item["labels"] for item in items], longest, IGNORED),
        }
        for key in ("patch_features", "pixel_values"):
            if key in items[0] and any(len(item[key]) for item in items):
                batch[key] = torch.from_numpy(np.concatenate([item[key] for item in items if len(item[key])])).float()
        return batch

    @staticmethod
    def _pad(rows: list[Sequence[int]], longest: int, value: int) -> Tensor:
        padded = np.full((len(rows), longest), value, np.int64)
        for line, row in zip(padded, rows, strict=True):
            line[: len(row)] = row
        return torch.from_numpy(padded)
