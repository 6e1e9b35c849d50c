"""The files that wandb writes for a run: run-ID.wandb, one for each process that worked on the run.

A file is a log of protocol buffers in LevelDB's format: blocks of 32 KiB with pieces of records, each with a checksum,
a length and a kind. The file of a killed process may be truncated.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FILE_HEADER, _PIECE_HEADER, _BLOCK = 7, 7, 32768  # bytes
_FULL, _LAST = 1, 4  # kinds of pieces that end a record
NO_STEP = -1  # before the first step, which is 0


def records(path: Path) -> Iterator[Any]:
    """The complete records of a file, as wandb's own Record messages."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    at, record = _FILE_HEADER, b""
    while at + _PIECE_HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _PIECE_HEADER:  # the rest of a block that is too short for a header is padding
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        at += _PIECE_HEADER + length
        if at > len(data):
            return
        record += data[at - length : at]
        if kind in (_FULL, _LAST):
            try:
                yield Record.FromString(record)
            except DecodeError:
                return
            record = b""


def history(path: Path) -> Iterator[dict[str, Any]]:
    """The logged values, a dict for each step."""
    for record in records(path):
        if record.HasField("history"):
            items = record.history.item
            yield {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def last_step(root: Path, run_id: str) -> int:
    """The last step in the files of a run; NO_STEP if there is none."""
    steps = (point["_step"] for path in root.glob(f"*run-*/run-{run_id}.wandb") for point in history(path))
    return max(steps, default=NO_STEP)
