"""Training samples as token ids, and their file."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.core.errors import InputError
from stages.common.data.chat import IGNORED

Sample = tuple[Sequence[int], Sequence[int], Sequence[int]]  # (numbers of its pictures in the split, input_ids, labels)

VALIDATION_ROWS = 400  # of split validation, at most, whose samples the validation loss is computed on
_CHUNK = 100_000  # samples in one Arrow list array, whose offsets have 32 bits
_SCHEMA = pa.schema(
    [
        ("pictures", pa.list_(pa.int32())),  # numbers in the split, in the order of placeholders
        ("input_ids", pa.list_(pa.int32())),  # a picture is one placeholder, whatever number of image tokens it takes
        ("labels", pa.list_(pa.int32())),
    ]
)


class Samples(Sequence[Sample]):
    """Many samples in little memory: each column is one array of numbers and the offsets at which samples start."""

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
        """Raises InputError if stage curriculum has not run yet."""
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
    """A chunk of a column, from sample ``first`` on."""
    starts = starts[first : first + _CHUNK + 1]
    return pa.ListArray.from_arrays((starts - starts[0]).astype(np.int32), numbers[starts[0] : starts[-1]])


def count_targets(labels: Sequence[int]) -> int:
    return int((np.asarray(labels) != IGNORED).sum())


def cut(sample: Sample, image_id: int, image_tokens: int, max_len: int) -> Sample:
    """The sample cut off after ``max_len`` tokens, image tokens included. A picture that does not fit is left out."""
    pictures, ids, labels = (np.asarray(part) for part in sample)
    ends = np.where(ids == image_id, image_tokens, 1).cumsum()
    kept = int(np.searchsorted(ends, max_len, side="right"))
    ids, labels = ids[:kept], labels[:kept]
    return pictures[: int((ids == image_id).sum())], ids, labels
