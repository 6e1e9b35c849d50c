"""Parquet shards: pictures with their texts and, in the built-in world, their truth. `datasets` can read them.

A row of the world has one picture and many texts, each of which may become a sample. A row read from a file has one
dialogue: any number of pictures, and its turns in order as texts of task "turn", whose questions have `<image>` where a
picture is. An answer is a list of sentences, whose concatenation is the text.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stages.common.core.errors import InputError
from stages.common.core.paths import SHARDS

_TEXT = pa.struct(
    [
        ("task", pa.string()),
        ("question", pa.string()),
        ("answer", pa.list_(pa.string())),
        ("kind", pa.string()),
        ("expected", pa.string()),
        ("claims", pa.list_(pa.list_(pa.string()))),  # of each sentence; none in texts from files
    ]
)
# With this metadata `datasets` decodes the column as images.
_FEATURES = {"info": {"features": {"images": {"_type": "List", "feature": {"_type": "Image"}}}}}
_GROUP_ROWS = 32  # rows in a row group, which is read as a whole; few, because PictureReader reads in random order
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("scene", pa.string()),
        ("texts", pa.list_(_TEXT)),
    ],
    metadata={"huggingface": json.dumps(_FEATURES)},
)

_NAME = "images.list.element.path"
_TEXT_COLUMNS = [
    f"texts.list.element.{name}"
    for name in ("task", "question", "answer.list.element", "kind", "expected", "claims.list.element.list.element")
]


def write_shard(path: Path, rows: Iterable[dict[str, Any]], metadata: dict[bytes, bytes] | None = None) -> int:
    """Write ``rows`` and return their number, with one row group in memory at a time. No rows: no file.

    ``metadata`` is added to that of the schema.
    """
    schema = SCHEMA.with_metadata(SCHEMA.metadata | (metadata or {}))
    # PNG and JPEG bytes do not compress further; texts and scenes do.
    images = {"images.list.element.bytes": "none", _NAME: "none", "id": "none"}
    compression = images | dict.fromkeys([*_TEXT_COLUMNS, "scene"], "zstd")
    left = iter(rows)
    written = 0
    writer = None
    try:
        while group := list(islice(left, _GROUP_ROWS)):
            writer = writer or pq.ParquetWriter(path, schema, compression=compression, use_dictionary=_TEXT_COLUMNS)
            writer.write_table(_table(group, schema))
            written += len(group)
    finally:
        if writer is not None:
            writer.close()
    return written


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """The same as pa.Table.from_pylist, column by column, which takes a fifth of the time."""
    texts = [text for row in rows for text in row["texts"]]
    fields = pa.StructArray.from_arrays(
        [pa.array([text.get(field.name) for text in texts], field.type) for field in _TEXT], fields=list(_TEXT)
    )
    starts = pa.array([0, *accumulate(len(row["texts"]) for row in rows)], pa.int32())
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in list(schema)[:-1]]
    return pa.table([*columns, pa.ListArray.from_arrays(starts, fields)], schema=schema)


def write_empty_shard(path: Path) -> None:
    pq.write_table(SCHEMA.empty_table(), path)


def has_split(split: str) -> bool:
    return any(SHARDS.glob(f"{split}-*.parquet"))


def shard_paths(split: str, root: Path = SHARDS) -> list[Path]:
    paths = sorted(root.glob(f"{split}-*.parquet"))
    if not paths:
        raise InputError(f"{root} holds no {split} shards: run `dvc repro prepare` first")
    return paths


def read_rows(
    split: str, columns: Sequence[str], limit: int | None = None, root: Path = SHARDS
) -> Iterator[dict[str, Any]]:
    """Rows of a split in order, at most ``limit``, with a few hundred in memory at a time."""
    yield from islice(_read_columns(split, columns, root), limit)


def _read_columns(split: str, columns: Sequence[str], root: Path) -> Iterator[dict[str, Any]]:
    for path in shard_paths(split, root):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256, columns=list(columns)):
            yield from batch.to_pylist()


def picture_starts(split: str) -> np.ndarray:
    """[rows + 1]: the pictures of row r have the numbers starts[r] to starts[r + 1] in the split."""
    counts = [len(row["images"]) for row in _read_columns(split, [_NAME], SHARDS)]
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def read_images(split: str) -> Iterator[dict[str, Any]]:
    """All pictures of a split in the order of their numbers."""
    for row in _read_columns(split, ["images"], SHARDS):
        yield from row["images"]


class PictureReader:
    """Encoded pictures by their number in the split. Reads a row group at a time and caches the last one."""

    def __init__(self, split: str) -> None:
        self._groups: list[tuple[Path, int]] = []
        starts = [0]
        for path in shard_paths(split):
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                names = file.read_row_group(group, columns=[_NAME]).column("images")
                self._groups.append((path, group))
                starts.append(starts[-1] + sum(map(len, names.to_pylist())))
        self._starts = np.array(starts)
        self._last: tuple[int, list[dict[str, Any]]] = (-1, [])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> dict[str, Any]:
        group = int(np.searchsorted(self._starts, number, side="right")) - 1
        if self._last[0] != group:
            path, within = self._groups[group]
            rows = (
                pq.ParquetFile(path)
                .read_row_group(within, columns=["images"], use_threads=False)
                .column("images")
                .to_pylist()
            )
            self._last = (group, [image for images in rows for image in images])
        return self._last[1][number - int(self._starts[group])]


def decode_image(image: dict[str, Any]) -> Image.Image:
    return to_rgb(Image.open(io.BytesIO(image["bytes"])))


def to_rgb(image: Image.Image) -> Image.Image:
    """The image on white where it is transparent, as transformers' image processors do and so a checkpoint's own."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
