"""What wandb has written for a run here: one file, run-ID.wandb, for each process that worked on the run.

A file is a log as LevelDB writes it, of protocol buffers: blocks of 32 KiB, in them pieces of records with a checksum,
a length and a kind. A process that was killed leaves a file that ends anywhere.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FILE_HEADER, _PIECE_HEADER, _BLOCK = 7, 7, 32768  # bytes
_WHOLE, _LAST = 1, 4  # kinds of pieces that end a record


def records(path: Path) -> Iterator[Any]:
    """The complete records of a file, as wandb's own Record messages."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    at, record = _FILE_HEADER, b""
    while at + _PIECE_HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _PIECE_HEADER:  # a block's end that is too short for a piece is filled up
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        at += _PIECE_HEADER + length
        if at > len(data):
            return
        record += data[at - length : at]
        if kind in (_WHOLE, _LAST):
            try:
                yield Record.FromString(record)
            except DecodeError:
                return
            record = b""


def history(path: Path) -> Iterator[dict[str, Any]]:
    """What was logged, a dict for each step."""
    for record in records(path):
        if record.HasField("history"):
            items = record.history.item
            yield {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def last_step(root: Path, run_id: str) -> int:
    """The last step that the files of a run hold; 0 without any."""
    steps = (point["_step"] for path in root.glob(f"*run-*/run-{run_id}.wandb") for point in history(path))
    return max(steps, default=0)
