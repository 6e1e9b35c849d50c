"""How the rows of a data file are divided among processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from stages.prepare.rows import RawRow

NumberedRow = tuple[int, Callable[[], RawRow]]  # a row's 1-based number, and a function that reads it or raises BadRow

BLOCK = 1 << 20  # bytes of a file that are read at a time


class Job(NamedTuple):
    """Consecutive rows of a data file, read by one process."""

    data: Path
    line: int  # 1-based number of the first row
    rows: int
    start: int  # JSON lines: byte; Parquet: row group
    stop: int  # JSON lines: byte; Parquet: row group; exclusive
    skip: int = 0  # Parquet: rows of row group ``start`` that belong to earlier jobs
