"""Rows that cannot be used: why, how many, and the file that lists them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO


class BadRow(Exception):
    """``reason`` is the same for all rows that have this fault; ``image`` names the one that has it, if one has."""

    def __init__(self, reason: str, image: str = "") -> None:
        super().__init__(reason, image)
        self.reason, self.image = reason, image


class PutAside(NamedTuple):
    line: int
    reason: str
    image: str


class Quarantine:
    """JSON lines of rows put aside; whole lines at any moment, whatever ends the run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def add(self, source: str, rows: Iterable[PutAside]) -> None:
        for row in rows:
            reason = f"{row.reason}: {row.image[:200]}" if row.image else row.reason
            line = {"source": source, "line": row.line, "reason": reason}
            self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._stream.flush()


@contextmanager
def open_quarantine(path: Path) -> Iterator[Quarantine]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a link into DVC's cache, which must not be written to
    with path.open("w", encoding="utf-8") as stream:
        yield Quarantine(stream)
