"""Reads single files of a large zip archive in little memory.

``zipfile`` holds an object for every entry, about 600 bytes each, in every process. Here the archive's directory is
read once, as a stream, into an SQLite file, and a process looks up what it needs.
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
_JUNK = "__MACOSX/"


class Entry(NamedTuple):
    offset: int  # of the local header
    packed: int
    size: int
    checksum: int
    method: int
    flags: int


def safe_name(name: str) -> str:
    """``name`` as a path below a folder, with plain slashes. Raises BadRow for one that leads out of it."""
    parts = [part for part in name.replace("\\", "/").split("/") if part != "."]
    if not parts or not parts[0] or "\0" in name or ".." in parts or parts[0][1:2] == ":":  # C:
        raise BadRow("image name leads out of the folder", name)
    return "/".join(part for part in parts if part)


def index_archive(archive: Path, index: Path) -> int:
    """Write the SQLite file ``index`` of all files in ``archive``; returns their number.

    Names that lead out of a folder are left out: nobody can ask for them. Where all files lie in one folder, they
    are found without its name, too. Raises InputError for a file that is no whole zip archive.
    """
    top: set[str] = set()

    def rows() -> Iterator[tuple[str | int, ...]]:
        for name, entry in _entries(archive):
            try:
                name = safe_name(name) if not name.endswith("/") else ""
            except BadRow:
                continue
            if name and not name.startswith(_JUNK):
                if len(top) < 2:
                    top.add(name.partition("/")[0] if "/" in name else "")
                yield name, *entry

    with closing(sqlite3.connect(index, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        database.execute("CREATE TABLE root (name TEXT)")
        database.execute(
            "CREATE TABLE entry (name TEXT PRIMARY KEY, offset INTEGER, packed INTEGER, size INTEGER, "
            "checksum INTEGER, method INTEGER, flags INTEGER) WITHOUT ROWID"
        )
        # A name that comes twice means the later entry, as it does to zipfile.
        database.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)", rows())
        root = top.pop() + "/" if len(top) == 1 else ""
        database.execute("INSERT INTO root VALUES (?)", (root,))
        (count,) = database.execute("SELECT count(*) FROM entry").fetchone()
        database.execute("COMMIT")
    return count


class Archive:
    """Files of a zip archive by name. ``index`` is what ``index_archive`` made of it."""

    def __init__(self, archive: Path, index: Path) -> None:
        self._file = archive.open("rb", buffering=0)
        self._database = sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        (self._root,) = self._database.execute("SELECT name FROM root").fetchone()

    def close(self) -> None:
        self._file.close()
        self._database.close()

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a file. Raises BadRow where it is missing, damaged, or larger than ``limit``."""
        path = safe_name(name)
        found = self._entry(path) or self._entry(self._root + path)
        if found is None:
            raise BadRow("image missing", name)
        if found.flags & _ENCRYPTED:
            raise BadRow("image encrypted in the zip", name)
        if found.method not in (_STORED, _DEFLATED):
            raise BadRow("image in the zip packed by a method other than deflate", name)
        if found.size > limit or found.packed > limit + 65536:  # deflate adds little to what it cannot make smaller
            raise BadRow(f"image file of more than {limit} bytes", name)
        data = _unpack(self._packed(found, name), found, name)
        if zlib.crc32(data) != found.checksum:
            raise BadRow("image with a wrong checksum in the zip", name)
        return data

    def _entry(self, name: str) -> Entry | None:
        row = self._database.execute(
            "SELECT offset, packed, size, checksum, method, flags FROM entry WHERE name = ?", (name,)
        ).fetchone()
        return row and Entry(*row)

    def _packed(self, entry: Entry, name: str) -> bytes:
        handle = self._file.fileno()
        header = os.pread(handle, _LOCAL.size, entry.offset)
        if len(header) == _LOCAL.size and header.startswith(b"PK\3\4"):
            *_, name_length, extra_length = _LOCAL.unpack(header)
            data = os.pread(handle, entry.packed, entry.offset + _LOCAL.size + name_length + extra_length)
            if len(data) == entry.packed:
                return data
        raise BadRow("image cut off in the zip", name)


def _unpack(packed: bytes, entry: Entry, name: str) -> bytes:
    if entry.method == _STORED:
        data = packed
    else:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflate.decompress(packed, entry.size + 1)  # a bomb gives one byte too many, and no more
        except zlib.error:
            raise BadRow("image damaged in the zip", name) from None
    if len(data) > entry.size:
        raise BadRow("image larger in the zip than the zip says", name)
    if len(data) < entry.size:
        raise BadRow("image damaged in the zip", name)
    return data


def _entries(archive: Path) -> Iterator[tuple[str, Entry]]:
    """The central directory. Each of its parts is checked against the length of what holds it."""
    try:
        with archive.open("rb", buffering=1 << 20) as file:
            start, size, shift = _directory(file)
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
                length, packed, offset = _wide(extra, values[9], values[8], values[16])
                numbers = (min(number, _LARGEST) for number in (offset + shift, packed, length))
                yield _text(name, flags), Entry(*numbers, checksum, method, flags)
    except (OSError, ValueError, struct.error) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{archive} cannot be read as a zip archive: {said}; fetch or make it again") from None


def _directory(file: BinaryIO) -> tuple[int, int, int]:
    """Where the central directory starts, its length, and what stands in front of the archive proper, in bytes."""
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
        raise ValueError("it has no end, so it is no zip archive or only a part of one")
    end = tail_start + at
    locator = end - _LOCATOR64.size
    file.seek(max(0, locator))
    found = file.read(_LOCATOR64.size)
    if locator >= 0 and found.startswith(b"PK\6\7"):
        # Looked for where it must stand, for its own position is told without what stands in front of the archive.
        end = locator - _END64.size
        file.seek(max(0, end))
        record = file.read(_END64.size)
        if end < 0 or not record.startswith(b"PK\6\6"):
            raise ValueError("its end is damaged")
        _, _, _, _, disk, first_disk, _, _, size, start = _END64.unpack(record)
    if disk or first_disk:
        raise ValueError("it is one of several parts")
    shift = end - size - start
    if shift < 0:
        raise ValueError("its directory is damaged")
    return end - size, size, shift


def _wide(extra: bytes, size: int, packed: int, offset: int) -> Iterator[int]:
    """Sizes and offset; each that does not fit 32 bits stands in the field for them, in this order."""
    large = b""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            large = extra[4 : 4 + length]
        extra = extra[4 + length :]
    for value in (size, packed, offset):
        if value == 0xFFFFFFFF:
            if len(large) < 8:
                raise ValueError("its directory is damaged")
            value, large = int.from_bytes(large[:8], "little"), large[8:]
        yield value


def _text(name: bytes, flags: int) -> str:
    """A name in UTF-8, as archives should have it, or in what Windows writes in China."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437" if flags & _UTF8 else "gb18030", "replace")
