"""Rows of JSON lines files: {"conversations": [...], "image": "a.jpg, b.jpg"}."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stages.prepare.jobs import BLOCK, Job, NumberedRow
from stages.prepare.rows import MAX_LINE, raw_row_of_line


def plan_jobs(data: Path, job_rows: int, max_rows: int | None) -> Iterator[Job]:
    """Divide the first ``max_rows`` lines into jobs of ``job_rows``, in one pass over the file."""
    start, lines = 0, 0  # of the current job
    done = 0  # lines in earlier jobs
    position = 0
    size = min(job_rows, max_rows or job_rows)
    with data.open("rb") as file:
        while block := file.read(BLOCK):
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
            used = 0
            while used + size - lines <= len(ends):
                used += size - lines
                stop = position + int(ends[used - 1]) + 1
                yield Job(data, done + 1, size, start, stop)
                start, lines, done = stop, 0, done + size
                size = min(job_rows, max_rows - done) if max_rows else job_rows
                if not size:
                    return
            lines += len(ends) - used
            position += len(block)
    if position > start:
        with data.open("rb") as file:
            file.seek(position - 1)
            lines += file.read() != b"\n"
        yield Job(data, done + 1, lines, start, position)


def raw_rows(job: Job, load: Callable[[str], bytes]) -> Iterator[NumberedRow]:
    """The rows of ``job`` without blank lines; ``load`` reads a picture by its name."""
    with job.data.open("rb") as file:
        file.seek(job.start)
        for number in range(job.line, job.line + job.rows):
            line = file.readline(MAX_LINE + 1)
            if len(line) > MAX_LINE and not line.endswith(b"\n"):
                _skip_line(file)
            if line.strip():
                yield number, partial(raw_row_of_line, line, load)


def _skip_line(file: BinaryIO) -> None:
    while (rest := file.readline(BLOCK)) and not rest.endswith(b"\n"):
        pass
