"""Rows of Parquet files: column conversations, and optionally image_bytes and image_names."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.core.errors import InputError
from stages.prepare.jobs import BLOCK, Job, NumberedRow
from stages.prepare.quarantine import BadRow
from stages.prepare.rows import RawRow, check_utf8, image_names, parse_json

_MAX_JOBS = 16  # jobs that a row group is divided into at most: each decodes all rows before its own
_BATCH_ROWS = 32


def plan_jobs(data: Path, shard_rows: int, max_rows: int | None) -> Iterator[Job]:
    """Divide the first ``max_rows`` rows; small row groups share a job, large ones are divided into several."""
    with _open(data) as file:
        left = min(max_rows or file.metadata.num_rows, file.metadata.num_rows)
        line, start, rows = 1, 0, 0  # of the current job
        for group in range(file.num_row_groups):
            here = min(file.metadata.row_group(group).num_rows, left - rows)
            if rows + here <= shard_rows:
                rows += here
                continue
            if rows:
                yield Job(data, line, rows, start, group)
                line, left = line + rows, left - rows
            # A multiple of shard_rows, so that no shard is written by two jobs.
            size = -(-here // (_MAX_JOBS * shard_rows)) * shard_rows
            for skip in range(0, here, size):
                yield Job(data, line + skip, min(size, here - skip), group, group + 1, skip)
            line, left, start, rows = line + here, left - here, group + 1, 0
        if rows:
            yield Job(data, line, rows, start, file.num_row_groups)


def raw_rows(job: Job) -> Iterator[NumberedRow]:
    skip, left, number = job.skip, job.rows, job.line
    with _open(job.data) as file:
        columns = [name for name in ("conversations", "image_bytes", "image_names") if name in file.schema_arrow.names]
        groups = list(range(job.start, job.stop))
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False):
            for index in range(skip, min(batch.num_rows, skip + left)):
                yield number, partial(_raw_row, batch, index)
                number, left = number + 1, left - 1
            skip = max(0, skip - batch.num_rows)
            if not left:
                break


def _open(data: Path) -> pq.ParquetFile:
    # With a buffer, pyarrow reads a column in pieces; without, it reads a row group's complete column at once.
    file = pq.ParquetFile(data, buffer_size=BLOCK, pre_buffer=False)
    schema = file.schema_arrow
    if "conversations" not in schema.names:
        file.close()
        raise InputError(f"{data} has no column conversations; its columns are {', '.join(schema.names)}")
    if "image_bytes" in schema.names and not _holds_bytes(schema.field("image_bytes").type):
        file.close()
        raise InputError(
            f"{data}: column image_bytes is of type {schema.field('image_bytes').type}; it must be binary, or a list "
            "of binary"
        )
    return file


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind)


def _raw_row(batch: pa.RecordBatch, index: int) -> RawRow:
    try:
        row = {name: batch.column(name)[index].as_py() for name in batch.schema.names}
    except UnicodeDecodeError:
        raise BadRow("broken UTF-8") from None
    conversations = row["conversations"]
    if isinstance(conversations, str):
        conversations = parse_json(conversations)
    data = row.get("image_bytes")
    pictures = data if isinstance(data, list) else [data]
    pictures = [picture for picture in pictures if picture is not None]
    names = row.get("image_names")
    names = image_names(names) if isinstance(names, str) else names
    if not _are_names(names, len(pictures)):
        names = [""] * len(pictures)  # nothing is looked up by them, so names that do not fit are no fault
    for name in names:
        check_utf8(name)
    return RawRow(conversations, names, pictures.__getitem__)


def _are_names(names: Any, count: int) -> bool:
    return isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)
