"""Zip archives: those that zipfile writes are read; damaged and malicious ones are errors with a reason."""

from __future__ import annotations

import io
import random
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from stages.common.core.errors import InputError
from stages.prepare.archive import Archive, index_archive, safe_name
from stages.prepare.quarantine import BadRow

LIMIT = 1 << 20
FILES = {
    "a.jpg": b"stored",
    "中文/图片 1.jpg": b"deflated" * 1000,
    "empty.jpg": b"",
    "deep/er/b.png": random.Random(1).randbytes(5000),
}


def make_zip(path: Path, files: dict[str, bytes] = FILES, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data, zipfile.ZIP_STORED if name == "a.jpg" else method)
    return path


def opened(path: Path) -> Archive:
    index = path.with_suffix(".sqlite")
    index.unlink(missing_ok=True)
    index_archive(path, index)
    return Archive(path, index)


def reason(archive: Archive, name: str, limit: int = LIMIT) -> str:
    with pytest.raises(BadRow) as caught:
        archive.read(name, limit)
    assert caught.value.image == name
    return caught.value.reason


def patched(path: Path, find: Callable[[bytes], int], new: bytes) -> Path:
    data = bytearray(path.read_bytes())
    start = find(bytes(data))
    data[start : start + len(new)] = new
    path.write_bytes(data)
    return path


def test_reads_what_zipfile_wrote(tmp_path: Path) -> None:
    archive = opened(make_zip(tmp_path / "x.zip"))
    assert {name: archive.read(name, LIMIT) for name in FILES} == FILES
    assert reason(archive, "b.png") == reason(archive, "中文/图片 2.jpg") == "image missing"


def test_folders_and_macos_metadata_are_not_counted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.mkdir("d")
        archive.writestr("d/a.jpg", b"1")
        archive.writestr("__MACOSX/d/a.jpg", b"2")
    assert index_archive(tmp_path / "x.zip", tmp_path / "x.sqlite") == 1
    assert Archive(tmp_path / "x.zip", tmp_path / "x.sqlite").read("a.jpg", LIMIT) == b"1"


def test_a_common_folder_may_be_omitted(tmp_path: Path) -> None:
    one = opened(make_zip(tmp_path / "one.zip", {"images/a.jpg": b"1", "images/sub/b.jpg": b"2"}))
    assert one.read("a.jpg", LIMIT) == one.read("images/a.jpg", LIMIT) == one.read("./images//a.jpg", LIMIT) == b"1"
    assert one.read("sub/b.jpg", LIMIT) == one.read("sub\\b.jpg", LIMIT) == b"2"
    two = opened(make_zip(tmp_path / "two.zip", {"images/a.jpg": b"1", "other/b.jpg": b"2"}))
    assert reason(two, "a.jpg") == reason(two, "b.jpg") == "image missing"
    flat = opened(make_zip(tmp_path / "flat.zip", {"images/a.jpg": b"1", "b.jpg": b"2"}))
    assert reason(flat, "a.jpg") == "image missing"


def test_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_zip(tmp_path / "plain.zip").read_bytes()
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    path = make_zip(tmp_path / "x.zip")
    assert b"PK\6\6" in path.read_bytes() and b"PK\6\6" not in plain
    assert {name: opened(path).read(name, LIMIT) for name in FILES} == FILES


@pytest.mark.parametrize("zip64", [False, True])
def test_bytes_before_and_after_and_a_comment(tmp_path: Path, zip64: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if zip64:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    path = make_zip(tmp_path / "x.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"comment PK\5\6 " * 1000
    path.write_bytes(b"#!/bin/sh\n" * 100 + path.read_bytes())
    assert {name: opened(path).read(name, LIMIT) for name in FILES} == FILES


def test_a_streamed_archive_is_read(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.jpg", "w", force_zip64=True) as f:
        f.write(b"streamed" * 100)
    (tmp_path / "x.zip").write_bytes(pipe.data)
    assert opened(tmp_path / "x.zip").read("a.jpg", LIMIT) == b"streamed" * 100


def test_the_later_of_two_entries_counts(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.jpg", b"old")
        archive.writestr("a.jpg", b"new")
    assert opened(tmp_path / "x.zip").read("a.jpg", LIMIT) == b"new"


def test_names_as_windows_writes_them_in_china(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"abcd.jpg": b"1", "z.jpg": b"2"})
    path.write_bytes(path.read_bytes().replace(b"abcd", "中文".encode("gbk")))
    assert opened(path).read("中文.jpg", LIMIT) == b"1"


@pytest.mark.parametrize(
    "name", ["../x.jpg", "a/../../x.jpg", "/x.jpg", "C:x.jpg", "c:\\x.jpg", "..\\x.jpg", "\\x.jpg", "a\0.jpg", ".", ""]
)
def test_names_outside_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadRow, match="outside the folder"):
        safe_name(name)
    path = make_zip(tmp_path / "x.zip", {"a.jpg": b"1", name or "d/": b"2"})
    assert index_archive(path, tmp_path / "x.sqlite") == 1 + ("\0" in name)  # zipfile itself cuts a name there
    assert reason(Archive(path, tmp_path / "x.sqlite"), name) == "image path outside the folder"


def test_dots_inside_the_folder() -> None:
    assert safe_name("./a//b/..c/d..jpg") == "a/b/..c/d..jpg"


def central(name: bytes, field: int) -> Callable[[bytes], int]:
    """Finds a field in the central directory's record of ``name``."""
    return lambda data: data.rindex(name, 0, data.rindex(b"PK\5\6")) - 46 + field


def test_encrypted(tmp_path: Path) -> None:
    path = patched(make_zip(tmp_path / "x.zip"), central(b"a.jpg", 8), b"\1")
    assert reason(opened(path), "a.jpg") == "image encrypted in the zip"
    assert opened(path).read("empty.jpg", LIMIT) == b""


def test_unsupported_method(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", method=zipfile.ZIP_LZMA)
    assert reason(opened(path), "deep/er/b.png") == "image in the zip compressed by a method other than deflate"


def test_wrong_checksum(tmp_path: Path) -> None:
    path = patched(make_zip(tmp_path / "x.zip"), lambda data: data.index(b"stored"), b"S")
    assert reason(opened(path), "a.jpg") == "image with a wrong checksum in the zip"


def test_damaged_data(tmp_path: Path) -> None:
    name = b"deep/er/b.png"
    path = patched(make_zip(tmp_path / "x.zip"), lambda data: data.index(name) + len(name), b"\xff" * 16)
    assert reason(opened(path), name.decode()) == "image damaged in the zip"


def test_compressed_data_that_ends_early(tmp_path: Path) -> None:
    name = "中文/图片 1.jpg".encode()
    path = patched(make_zip(tmp_path / "x.zip"), central(name, 20), struct.pack("<L", 10))
    assert reason(opened(path), name.decode()) == "image damaged in the zip"


def test_wrong_offsets(tmp_path: Path) -> None:
    path = patched(make_zip(tmp_path / "x.zip"), central(b"a.jpg", 42), struct.pack("<L", 7))
    assert reason(opened(path), "a.jpg") == "image truncated in the zip"
    path = patched(make_zip(tmp_path / "x.zip"), central(b"a.jpg", 42), struct.pack("<L", 2**32 - 2))
    assert reason(opened(path), "a.jpg") == "image truncated in the zip"
    path = patched(make_zip(tmp_path / "x.zip"), lambda _: 0, b"PK\3\5")
    assert reason(opened(path), "a.jpg") == "image truncated in the zip"
    name = "中文/图片 1.jpg"
    path = patched(make_zip(tmp_path / "x.zip"), central(name.encode(), 20), struct.pack("<L", 500_000))
    assert reason(opened(path), name) == "image truncated in the zip"


def test_an_offset_larger_than_sqlite_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    extra = "中文/图片 1.jpg".encode() + struct.pack("<2H", 1, 24)  # size, compressed size, offset follow
    path = make_zip(tmp_path / "x.zip")
    patched(path, lambda data: data.rindex(extra) + len(extra) + 16, b"\xff" * 8)
    assert reason(opened(path), "中文/图片 1.jpg") == "image truncated in the zip"


def test_a_zip_bomb_is_decompressed_up_to_its_stated_size_only(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"bomb.jpg": bytes(50_000_000)})
    patched(path, central(b"bomb.jpg", 24), struct.pack("<L", 1000))
    archive = opened(path)
    tracemalloc.start()
    assert reason(archive, "bomb.jpg") == "image larger than the size in the zip's directory"
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    patched(path, central(b"bomb.jpg", 24), struct.pack("<L", 50_000_000))
    assert reason(opened(path), "bomb.jpg") == f"image file larger than {LIMIT} bytes"
    patched(path, central(b"bomb.jpg", 20), struct.pack("<L", 1 << 30))
    patched(path, central(b"bomb.jpg", 24), struct.pack("<L", 1000))
    assert reason(opened(path), "bomb.jpg") == f"image file larger than {LIMIT} bytes"


def test_data_shorter_than_its_stated_size(tmp_path: Path) -> None:
    name = "中文/图片 1.jpg".encode()
    path = patched(make_zip(tmp_path / "x.zip"), central(name, 24), struct.pack("<L", 8001))
    assert reason(opened(path), name.decode()) == "image damaged in the zip"


def test_data_longer_than_its_stated_size(tmp_path: Path) -> None:
    path = patched(make_zip(tmp_path / "x.zip"), central(b"a.jpg", 24), struct.pack("<L", 3))
    assert reason(opened(path), "a.jpg") == "image larger than the size in the zip's directory"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"no zip at all" * 100, "not a zip archive or only a part"),
        (lambda data: b"", "not a zip archive or only a part"),
        (lambda data: data[:-40], "not a zip archive or only a part"),
        (lambda data: data[: data.index(b"PK\1\2")] + data[data.index(b"PK\1\2") + 10 :], "its directory is damaged"),
        (lambda data: data.replace(b"PK\1\2", b"PK\1\3", 2), "its directory is damaged"),
        (lambda data: data[200:], "its directory is damaged"),
        (lambda data: data[:-18] + b"\1\0" + data[-16:], "it is one of several parts"),
    ],
)
def test_a_broken_archive_is_a_one_line_error(damage: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"x\.zip cannot be read as a zip archive: .*{re.escape(message)}.*; fetch"):
        index_archive(path, tmp_path / "x.sqlite")


def test_random_damage_raises_bad_row_or_input_error(tmp_path: Path) -> None:
    whole = make_zip(tmp_path / "x.zip").read_bytes()
    rng = random.Random(2)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.choice((0, 0xFF, rng.randrange(256)))
        (tmp_path / "x.zip").write_bytes(data[: len(data) - rng.choice((0, 0, 0, rng.randrange(60)))])
        try:
            archive = opened(tmp_path / "x.zip")
        except InputError:
            continue
        for name, content in FILES.items():
            with suppress(BadRow):
                assert archive.read(name, LIMIT) == content
        archive.close()
