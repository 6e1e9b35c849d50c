"""Rows that cannot be used: the reason for each, and the file that lists them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO


class BadRow(Exception):
    """A row that cannot be used.

    ``reason`` is the same text for all rows with the same fault, so that they can be counted; ``image`` is the name of
    the image at fault, "" if none is.
    """

    def __init__(self, reason: str, image: str = "") -> None:
        super().__init__(reason, image)
        self.reason, self.image = reason, image


class QuarantinedRow(NamedTuple):
    line: int  # 1-based number of the row in its file
    reason: str
    image: str


class Quarantine:
    """Writes quarantined rows as JSON lines. The file holds complete lines only, also after the process is killed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def add(self, source: str, rows: Iterable[QuarantinedRow]) -> None:
        for row in rows:
            reason = f"{row.reason}: {row.image[:200]}" if row.image else row.reason
            line = {"source": source, "line": row.line, "reason": reason}
            self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._stream.flush()


@contextmanager
def open_quarantine(path: Path) -> Iterator[Quarantine]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a hard link into DVC's cache, which must not be written to
    with path.open("w", encoding="utf-8") as stream:
        yield Quarantine(stream)
