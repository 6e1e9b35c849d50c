"""Reads single files of a large zip archive with little memory.

``zipfile`` keeps an object of about 600 bytes for every entry, in every process. Here the archive's central directory
is read once, as a stream, into an SQLite file, and each process queries the entries that it needs.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

from stages.common.core.errors import InputError
from stages.prepare.quarantine import BadRow

_ENTRY = struct.Struct("<4s6H3L5H2L")  # of the central directory
_LOCAL = struct.Struct("<4s5H3L2H")  # in front of an entry's data
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8 = 0x0001, 0x0800
_LARGEST = 2**62  # SQLite's integers have a sign
_MACOS_METADATA = "__MACOSX/"


class Entry(NamedTuple):
    offset: int  # of the local header
    compressed: int  # bytes
    size: int  # bytes, after decompression
    checksum: int
    method: int
    flags: int


def safe_name(name: str) -> str:
    """``name`` as a relative path with forward slashes. Raises BadRow if it points outside its folder."""
    parts = [part for part in name.replace("\\", "/").split("/") if part != "."]
    if not parts or not parts[0] or "\0" in name or ".." in parts or parts[0][1:2] == ":":  # C:
        raise BadRow("image path outside the folder", name)
    return "/".join(part for part in parts if part)


def index_archive(archive: Path, index: Path) -> int:
    """Write the SQLite file ``index`` of all files in ``archive``; returns the number of files.

    Entries whose path points outside the archive's folder are skipped. If all files are in one folder, they are also
    found without that folder's name. Raises InputError for a file that is not a complete zip archive.
    """
    top: set[str] = set()

    def rows() -> Iterator[tuple[str | int, ...]]:
        for name, entry in _entries(archive):
            try:
                name = safe_name(name) if not name.endswith("/") else ""
            except BadRow:
                continue
            if name and not name.startswith(_MACOS_METADATA):
                if len(top) < 2:
                    top.add(name.partition("/")[0] if "/" in name else "")
                yield name, *entry

    with closing(sqlite3.connect(index, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        database.execute("CREATE TABLE root (name TEXT)")
        database.execute(
            "CREATE TABLE entry (name TEXT PRIMARY KEY, offset INTEGER, compressed INTEGER, size INTEGER, "
            "checksum INTEGER, method INTEGER, flags INTEGER) WITHOUT ROWID"
        )
        # Of two entries with the same name the later one counts, as in zipfile.
        database.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)", rows())
        root = top.pop() + "/" if len(top) == 1 else ""
        database.execute("INSERT INTO root VALUES (?)", (root,))
        (count,) = database.execute("SELECT count(*) FROM entry").fetchone()
        database.execute("COMMIT")
    return count


class Archive:
    """Files of a zip archive by name. ``index`` is the file that ``index_archive`` wrote."""

    def __init__(self, archive: Path, index: Path) -> None:
        self._file = archive.open("rb", buffering=0)
        self._database = sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        (self._root,) = self._database.execute("SELECT name FROM root").fetchone()

    def close(self) -> None:
        self._file.close()
        self._database.close()

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a file. Raises BadRow if it is missing, damaged, or larger than ``limit`` bytes."""
        path = safe_name(name)
        found = self._entry(path) or self._entry(self._root + path)
        if found is None:
            raise BadRow("image missing", name)
        if found.flags & _ENCRYPTED:
            raise BadRow("image encrypted in the zip", name)
        if found.method not in (_STORED, _DEFLATED):
            raise BadRow("image in the zip compressed by a method other than deflate", name)
        if found.size > limit or found.compressed > limit + 65536:  # deflate adds little to incompressible data
            raise BadRow(f"image file larger than {limit} bytes", name)
        data = _decompress(self._compressed(found, name), found, name)
        if zlib.crc32(data) != found.checksum:
            raise BadRow("image with a wrong checksum in the zip", name)
        return data

    def _entry(self, name: str) -> Entry | None:
        row = self._database.execute(
            "SELECT offset, compressed, size, checksum, method, flags FROM entry WHERE name = ?", (name,)
        ).fetchone()
        return row and Entry(*row)

    def _compressed(self, entry: Entry, name: str) -> bytes:
        handle = self._file.fileno()
        header = os.pread(handle, _LOCAL.size, entry.offset)
        if len(header) == _LOCAL.size and header.startswith(b"PK\3\4"):
            *_, name_length, extra_length = _LOCAL.unpack(header)
            data = os.pread(handle, entry.compressed, entry.offset + _LOCAL.size + name_length + extra_length)
            if len(data) == entry.compressed:
                return data
        raise BadRow("image truncated in the zip", name)


def _decompress(compressed: bytes, entry: Entry, name: str) -> bytes:
    if entry.method == _STORED:
        data = compressed
    else:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflate.decompress(compressed, entry.size + 1)  # a zip bomb yields one byte too many, not more
        except zlib.error:
            raise BadRow("image damaged in the zip", name) from None
    if len(data) > entry.size:
        raise BadRow("image larger than the size in the zip's directory", name)
    if len(data) < entry.size:
        raise BadRow("image damaged in the zip", name)
    return data


def _entries(archive: Path) -> Iterator[tuple[str, Entry]]:
    """Names and entries of the central directory; every length is checked against the bytes that are there."""
    try:
        with archive.open("rb", buffering=1 << 20) as file:
            start, size, prefix = _directory(file)
            file.seek(start)
            left = size
            while left:
                head = file.read(_ENTRY.size)
                if len(head) < _ENTRY.size or not head.startswith(b"PK\1\2"):
                    raise ValueError("its directory is damaged")
                values = _ENTRY.unpack(head)
                flags, method, checksum = values[3], values[4], values[7]
                lengths = values[10:13]
                rest = file.read(sum(lengths))
                left -= _ENTRY.size + len(rest)
                if len(rest) < sum(lengths) or left < 0:
                    raise ValueError("its directory is damaged")
                name, extra = rest[: lengths[0]], rest[lengths[0] : lengths[0] + lengths[1]]
                length, compressed, offset = _zip64_values(extra, values[9], values[8], values[16])
                numbers = (min(number, _LARGEST) for number in (offset + prefix, compressed, length))
                yield _decode_name(name, flags), Entry(*numbers, checksum, method, flags)
    except (OSError, ValueError, struct.error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{archive} cannot be read as a zip archive: {reason}; fetch or make it again") from None


def _directory(file: BinaryIO) -> tuple[int, int, int]:
    """Bytes: where the central directory starts, its length, and how much precedes the archive in the file."""
    length = file.seek(0, os.SEEK_END)
    tail_start = max(0, length - _END.size - 65535)
    file.seek(tail_start)
    tail = file.read()
    at = len(tail)
    while (at := tail.rfind(b"PK\5\6", 0, at)) >= 0:
        if at + _END.size <= len(tail):
            _, disk, first_disk, _, _, size, start, comment = _END.unpack_from(tail, at)
            if at + _END.size + comment <= len(tail):
                break
    else:
        raise ValueError("it has no end record, so it is not a zip archive or only a part of one")
    end = tail_start + at
    locator = end - _LOCATOR64.size
    file.seek(max(0, locator))
    found = file.read(_LOCATOR64.size)
    if locator >= 0 and found.startswith(b"PK\6\7"):
        # Read from its only possible position: the stored position does not count bytes in front of the archive.
        end = locator - _END64.size
        file.seek(max(0, end))
        record = file.read(_END64.size)
        if end < 0 or not record.startswith(b"PK\6\6"):
            raise ValueError("its end record is damaged")
        _, _, _, _, disk, first_disk, _, _, size, start = _END64.unpack(record)
    if disk or first_disk:
        raise ValueError("it is one of several parts")
    prefix = end - size - start
    if prefix < 0:
        raise ValueError("its directory is damaged")
    return end - size, size, prefix


def _zip64_values(extra: bytes, size: int, compressed: int, offset: int) -> Iterator[int]:
    """The sizes and the offset; those that do not fit 32 bits are read from the zip64 extra field, in this order."""
    large = b""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            large = extra[4 : 4 + length]
        extra = extra[4 + length :]
    for value in (size, compressed, offset):
        if value == 0xFFFFFFFF:
            if len(large) < 8:
                raise ValueError("its directory is damaged")
            value, large = int.from_bytes(large[:8], "little"), large[8:]
        yield value


def _decode_name(name: bytes, flags: int) -> str:
    """A name in UTF-8, or else in GB18030, as Windows in China writes it."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437" if flags & _UTF8 else "gb18030", "replace")
