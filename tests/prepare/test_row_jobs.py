"""Data files are divided into jobs: every row is in one of them, under its own number."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.prepare.images import Images
from stages.prepare.quarantine import BadRow
from stages.prepare.sources import plan_jobs, raw_rows
from tests.prepare.file_sources import dialogue, jsonl, line, parquet


def numbers_of(path: Path, shard_rows: int, max_rows: int | None = None) -> list[int]:
    jobs = plan_jobs(path, shard_rows, max_rows)
    found = [number for job in jobs for number, make in raw_rows(job, Images(path.parent, None))]
    starts = [job.line for job in jobs]
    assert starts == [1 + sum(job.rows for job in jobs[:index]) for index in range(len(jobs))]
    return found


@pytest.mark.parametrize("shard_rows", [1, 3, 20, 1000])
@pytest.mark.parametrize("max_rows", [None, 1, 19, 20, 21, 57, 100])
def test_every_row_is_in_one_job(
    tmp_path: Path, shard_rows: int, max_rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.prepare.jsonl.BLOCK", 100)
    expected = list(range(1, min(57, max_rows or 57) + 1))
    assert numbers_of(jsonl(tmp_path / "s.jsonl", 57), shard_rows, max_rows) == expected
    (tmp_path / "s.jsonl").write_bytes((tmp_path / "s.jsonl").read_bytes()[:-1])  # no newline at the end
    assert numbers_of(tmp_path / "s.jsonl", shard_rows, max_rows) == expected
    for group in (1, 8, 57):
        assert numbers_of(parquet(tmp_path / "s.parquet", 57, True, group), shard_rows, max_rows) == expected


def test_a_large_row_group_is_divided(tmp_path: Path) -> None:
    jobs = plan_jobs(parquet(tmp_path / "s.parquet", 100, True), 3, None)
    assert [job.rows for job in jobs] == [9] * 11 + [1]
    assert [job.skip for job in jobs] == list(range(0, 100, 9))


def test_blank_lines_are_not_rows(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_bytes(b"\n" + line(0) + b"\n \r\n" + line(1) + b"\r\n\n")
    assert numbers_of(tmp_path / "s.jsonl", 2) == [2, 4]


def test_an_overlong_line_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("jsonl", "rows"):
        monkeypatch.setattr(f"stages.prepare.{module}.MAX_LINE", 500)
    monkeypatch.setattr("stages.prepare.jsonl.BLOCK", 100)
    (tmp_path / "s.jsonl").write_bytes(line(0) + b"\n" + b"x" * 5000 + b"\n" + line(1) + b"\n")
    (job,) = plan_jobs(tmp_path / "s.jsonl", 10, None)
    found = list(raw_rows(job, Images(tmp_path, None)))
    assert [number for number, _ in found] == [1, 2, 3]
    assert found[2][1]().conversations == dialogue(1, 1)
    with pytest.raises(BadRow, match="line longer than 500 bytes"):
        found[1][1]()
    (tmp_path / "s.jsonl").write_bytes(b"x" * 500 + b"\n" + line(1) + b"\n")
    (job,) = plan_jobs(tmp_path / "s.jsonl", 10, None)
    assert [number for number, _ in raw_rows(job, Images(tmp_path, None))] == [1, 2]
