"""Data files of either format: dividing them into jobs, and reading their rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa

from stages.common.core.errors import InputError
from stages.prepare import jsonl, parquet
from stages.prepare.images import Images, load_image
from stages.prepare.jobs import Job, NumberedRow


def plan_jobs(data: Path, shard_rows: int, max_rows: int | None) -> list[Job]:
    """Divide the first ``max_rows`` rows of ``data``, independently of the number of processes. Raises InputError."""
    with _read_errors(data):
        jobs = list((parquet if data.suffix == ".parquet" else jsonl).plan_jobs(data, shard_rows, max_rows))
    if not any(job.rows for job in jobs):
        raise InputError(f"{data} holds no rows; fetch or make it again")
    return jobs


def raw_rows(job: Job, images: Images | None) -> Iterator[NumberedRow]:
    """The rows of ``job``, without blank lines. Raises InputError if the file cannot be read."""
    with _read_errors(job.data):
        if job.data.suffix == ".parquet":
            yield from parquet.raw_rows(job)
        else:
            yield from jsonl.raw_rows(job, partial(load_image, images))


@contextmanager
def _read_errors(data: Path) -> Iterator[None]:
    """Errors of reading ``data`` become InputErrors."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:  # pyarrow: OSError for damaged pages, ArrowException for metadata
        message = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{data} cannot be read: {message}; fetch or make it again") from None
