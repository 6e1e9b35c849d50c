"""Data files that cannot be used at all are one-line errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory
from stages.prepare.files import RowSource, write_files
from tests.prepare.file_runs import parameters, write
from tests.prepare.file_sources import jsonl, line, parquet


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.write_bytes(b"PAR1" + bytes(100)), "cannot be read: .*; fetch or make it again"),
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "cannot be read: .*; fetch or make it again"),
        (lambda p: p.write_bytes(p.read_bytes()[:100] + bytes(4000) + p.read_bytes()[4100:]), "cannot be read"),
        (lambda p: pq.write_table(pa.table({"talk": [1], "x": [2]}), p), "no column conversations; .* talk, x"),
        (lambda p: parquet(p, 50, True, image_bytes=pa.array([[1, 2]] * 50)), r"image_bytes is of type list<.*int64>"),
        (lambda p: parquet(p, 50, True, image_bytes=pa.array(["x"] * 50)), "image_bytes is of type string"),
        (lambda p: parquet(p, 0, True), "holds no rows"),
        (lambda p: p.unlink(), "is missing"),
        (
            lambda p: parquet(p, 40, True),
            r"has 40 rows, .*validation_scenes \(20\) and .*test_scenes \(20\) leave none",
        ),
    ],
)
@pytest.mark.usefixtures("in_this_process")
def test_broken_parquet_is_a_one_line_error(tmp_path: Path, change: Callable[[Path], Any], message: str) -> None:
    path = parquet(tmp_path / "s.parquet", 100, True)
    change(path)
    with pytest.raises(InputError, match=rf"s\.parquet.*{message}"):
        write(tmp_path, RowSource(path, None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "s.jsonl").write_bytes(b""), r"s\.jsonl holds no rows"),
        (lambda p: (p / "s.jsonl").write_bytes(b"\n" * 100), r"s\.jsonl: none of its 0 rows is in split train"),
        (lambda p: (p / "images").write_bytes(b"no zip"), "images cannot be read as a zip archive"),
        (lambda p: (p / "s.jsonl").chmod(0), r"s\.jsonl cannot be read: Permission denied"),
        (lambda p: jsonl(p / "s.jsonl", 60, {n: line(9) for n in range(1, 61)}), "images is missing"),
        (lambda p: (p / "out").rmdir(), "out cannot be written: No such file"),
    ],
)
@pytest.mark.usefixtures("in_this_process")
def test_broken_input_is_a_one_line_error(
    tmp_path: Path, source: Path, change: Callable[[Path], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jsonl(tmp_path / "s.jsonl", 100)
    (tmp_path / "out").mkdir()
    change(tmp_path)
    images = tmp_path / "images" if "images" in message else source / "images"
    if "Permission" in message:  # root may read everything
        denied = PermissionError(13, "Permission denied")
        monkeypatch.setattr("stages.prepare.jsonl.plan_jobs", lambda *_: (_ for _ in ()).throw(denied))
    with pytest.raises(InputError, match=message):
        write_files(
            None, RowSource(tmp_path / "s.jsonl", images), [], parameters(), tmp_path / "out", tmp_path / "q.jsonl"
        )


def test_the_suffix_must_match_the_source(tmp_path: Path, source: Path) -> None:
    sft = RowSource(source / "sft.jsonl", source / "images")
    with pytest.raises(InputError, match=r"sft\.jsonl does not end in \.parquet, as data\.source: parquet requires"):
        write(tmp_path, sft, source="parquet")
    (tmp_path / "s.json").write_bytes(b"")
    with pytest.raises(InputError, match=r"s\.json does not end in \.jsonl or \.parquet, as data\.source: minimind"):
        write(tmp_path, RowSource(tmp_path / "s.json", None))
    with pytest.raises(InputError, match=r"s\.parquet does not end in \.jsonl, as data\.source: jsonl"):
        write(tmp_path, sft, RowSource(tmp_path / "s.parquet", None), source="jsonl")


def test_a_split_without_rows_is_a_one_line_error(tmp_path: Path, source: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", 5)
    with pytest.raises(InputError, match=r"s\.jsonl: none of its 5 rows is in split \w+, .* set data\.\w+_scenes high"):
        write(tmp_path, RowSource(path, source / "images"), test_scenes=1, validation_scenes=1, seed=1)


def test_an_error_in_a_process_leaves_no_folder(tmp_path: Path, source: Path) -> None:
    path = parquet(tmp_path / "s.parquet", 200, True, group=20)
    data = bytearray(path.read_bytes())
    for group in range(5, 10):  # the footer is intact, so that only reading the rows fails
        start = pq.ParquetFile(path).metadata.row_group(group).column(0).data_page_offset
        data[start : start + 100] = bytes(100)
    path.write_bytes(data)
    with (
        pytest.raises(InputError, match=r"s\.parquet cannot be read: "),
        atomic_directory(tmp_path / "target") as folder,
    ):
        write_files(None, RowSource(path, None), [], parameters(2), folder, tmp_path / "q.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.jsonl", "s.parquet"]
