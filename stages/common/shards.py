"""Parquet shards: one row a picture, with its texts and its truth. `datasets` opens them as they are."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stages.common.errors import InputError
from stages.common.paths import SHARDS

_TEXT = pa.struct(
    [
        ("task", pa.string()),
        ("question", pa.string()),
        ("answer", pa.list_(pa.string())),
        ("kind", pa.string()),
        ("expected", pa.string()),
    ]
)
# The metadata is what makes `datasets` decode the column as pictures.
_FEATURES = {"info": {"features": {"image": {"_type": "Image"}}}}
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("scene", pa.string()),
        ("texts", pa.list_(_TEXT)),
    ],
    metadata={"huggingface": json.dumps(_FEATURES)},
)


def write_shard(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    # PNG bytes don't compress further; texts and truths do.
    compression = {
        name: "none" if name.startswith("image") else "zstd" for name in ("id", "image.bytes", "image.path", "scene")
    }
    pq.write_table(table, path, compression=compression | {"texts": "zstd"}, row_group_size=256)


def shard_paths(split: str, root: Path = SHARDS) -> list[Path]:
    paths = sorted(root.glob(f"{split}-*.parquet"))
    if not paths:
        raise InputError(f"{root} holds no {split} shards: run `dvc repro prepare` first")
    return paths


def read_rows(
    split: str, columns: Sequence[str], limit: int | None = None, root: Path = SHARDS
) -> Iterator[dict[str, Any]]:
    """Rows of a split in order, at most ``limit``; only a row group is in memory at a time."""
    left = limit
    for path in shard_paths(split, root):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256, columns=list(columns)):
            for row in batch.to_pylist():
                if left == 0:
                    return
                yield row
                if left is not None:
                    left -= 1


def count_rows(split: str, root: Path = SHARDS) -> int:
    return sum(pq.ParquetFile(path).metadata.num_rows for path in shard_paths(split, root))


def decode_image(image: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(image["bytes"])).convert("RGB")
