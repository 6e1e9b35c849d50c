"""Data files: how many rows they hold, how the work on them is divided, and their raw rows."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.core.errors import InputError
from stages.prepare.archive import Archive, safe_name
from stages.prepare.quarantine import BadRow
from stages.prepare.rows import MAX_LINE, RawRow, from_json, image_names, need_utf8, raw_row_of_line

_SLICES = 16  # jobs that a row group of Parquet is divided into at most: each reads past all rows before its own
_BATCH_ROWS = 32
_BLOCK = 1 << 20  # bytes
_MAX_FILE = 1 << 26  # bytes of a picture in a folder or a zip

Role = Literal["sft", "pretrain"]
Numbered = tuple[int, Callable[[], RawRow]]  # a row's 1-based number, and what makes it or raises BadRow


class Job(NamedTuple):
    """Consecutive rows of a data file, for one process; ``line`` is the number of the first one."""

    data: Path
    line: int
    rows: int
    start: int  # jsonl: byte; parquet: row group
    stop: int
    skip: int = 0  # parquet: rows of row group ``start`` that are not this job's


class Images(NamedTuple):
    """A folder, or a zip archive and the index of it."""

    path: Path
    index: Path | None


def plan(data: Path, shard_rows: int, max_rows: int | None) -> list[Job]:
    """Divide the first ``max_rows`` rows of ``data``. The plan depends on no process. Raises InputError."""
    with _readable(data):
        jobs = list((_plan_parquet if data.suffix == ".parquet" else _plan_jsonl)(data, shard_rows, max_rows))
    if not any(job.rows for job in jobs):
        raise InputError(f"{data} holds no rows; fetch or make it again")
    return jobs


def raw_rows(job: Job, images: Images | None) -> Iterator[Numbered]:
    """The rows of ``job``; blank lines are no rows. Raises InputError where the file cannot be read on."""
    with _readable(job.data):
        if job.data.suffix == ".parquet":
            yield from _parquet_rows(job)
        else:
            yield from _jsonl_rows(job, partial(load_image, images))


def load_image(images: Images | None, name: str) -> bytes:
    """The bytes of a picture file. Raises BadRow."""
    if images is None:
        raise BadRow("image, but no folder or zip of images", name)
    try:
        if images.index is not None:
            return _archive(images.path, images.index).read(name, _MAX_FILE)
        return _read_file(images.path / safe_name(name), name)
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
        raise BadRow("image missing" if missing else "image cannot be read", name) from None


@lru_cache(maxsize=2)
def _archive(path: Path, index: Path) -> Archive:
    return Archive(path, index)


def _read_file(path: Path, name: str) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise BadRow("image missing", name)
    with path.open("rb") as file:
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise BadRow(f"image file of more than {_MAX_FILE} bytes", name)
    return data


class _readable:
    """What goes wrong inside is the data file's fault, and one sentence."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        # pyarrow raises OSError for damaged pages, ArrowException for damaged metadata.
        if isinstance(error, OSError | pa.ArrowException):
            said = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise InputError(f"{self._data} cannot be read: {said}; fetch or make it again") from None


# ------------------------------------------------------------------------------------------------------------ jsonl


def _plan_jsonl(data: Path, shard_rows: int, max_rows: int | None) -> Iterator[Job]:
    start, lines = 0, 0  # of the job under way
    done = 0  # lines before it
    position = 0
    wanted = min(shard_rows, max_rows or shard_rows)
    with data.open("rb") as file:
        while block := file.read(_BLOCK):
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
            used = 0
            while used + wanted - lines <= len(ends):
                used += wanted - lines
                stop = position + int(ends[used - 1]) + 1
                yield Job(data, done + 1, wanted, start, stop)
                start, lines, done = stop, 0, done + wanted
                wanted = min(shard_rows, max_rows - done) if max_rows else shard_rows
                if not wanted:
                    return
            lines += len(ends) - used
            position += len(block)
    if position > start:
        with data.open("rb") as file:
            file.seek(position - 1)
            lines += file.read() != b"\n"
        yield Job(data, done + 1, lines, start, position)


def _jsonl_rows(job: Job, load: Callable[[str], bytes]) -> Iterator[Numbered]:
    with job.data.open("rb") as file:
        file.seek(job.start)
        for number in range(job.line, job.line + job.rows):
            line = file.readline(MAX_LINE + 1)
            if len(line) > MAX_LINE and not line.endswith(b"\n"):
                _skip_line(file)
            if line.strip():
                yield number, partial(raw_row_of_line, line, load)


def _skip_line(file: BinaryIO) -> None:
    while (rest := file.readline(_BLOCK)) and not rest.endswith(b"\n"):
        pass


# ---------------------------------------------------------------------------------------------------------- parquet


def _plan_parquet(data: Path, shard_rows: int, max_rows: int | None) -> Iterator[Job]:
    with _open_parquet(data) as file:
        left = min(max_rows or file.metadata.num_rows, file.metadata.num_rows)
        line, start, rows = 1, 0, 0  # of the job under way
        for group in range(file.num_row_groups):
            here = min(file.metadata.row_group(group).num_rows, left - rows)
            if rows + here <= shard_rows:
                rows += here  # small row groups go together
                continue
            if rows:
                yield Job(data, line, rows, start, group)
                line, left = line + rows, left - rows
            # Whole shards to every slice, or a shard would be begun by one process and ended by another.
            size = -(-here // (_SLICES * shard_rows)) * shard_rows
            for skip in range(0, here, size):
                yield Job(data, line + skip, min(size, here - skip), group, group + 1, skip)
            line, left, start, rows = line + here, left - here, group + 1, 0
        if rows:
            yield Job(data, line, rows, start, file.num_row_groups)


def _parquet_rows(job: Job) -> Iterator[Numbered]:
    skip, left, number = job.skip, job.rows, job.line
    with _open_parquet(job.data) as file:
        columns = [name for name in ("conversations", "image_bytes", "image_names") if name in file.schema_arrow.names]
        groups = list(range(job.start, job.stop))
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False):
            for index in range(skip, min(batch.num_rows, skip + left)):
                yield number, partial(_raw_row_of_batch, batch, index)
                number, left = number + 1, left - 1
            skip = max(0, skip - batch.num_rows)
            if not left:
                break


def _open_parquet(data: Path) -> pq.ParquetFile:
    # A buffer makes pyarrow read a column piece by piece; without, it reads a row group's whole column at once.
    file = pq.ParquetFile(data, buffer_size=_BLOCK, pre_buffer=False)
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


def _raw_row_of_batch(batch: pa.RecordBatch, index: int) -> RawRow:
    try:
        row = {name: batch.column(name)[index].as_py() for name in batch.schema.names}
    except UnicodeDecodeError:
        raise BadRow("broken UTF-8") from None
    conversations = row["conversations"]
    if isinstance(conversations, str):
        conversations = from_json(conversations)
    data = row.get("image_bytes")
    pictures = data if isinstance(data, list) else [data]
    pictures = [picture for picture in pictures if picture is not None]
    given = row.get("image_names")
    names = image_names(given) if isinstance(given, str) else given
    if not _name_all(names, len(pictures)):
        names = [""] * len(pictures)  # they are no more than labels here
    for name in names:
        need_utf8(name)
    return RawRow(conversations, names, pictures.__getitem__)


def _name_all(names: Any, count: int) -> bool:
    return isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)
