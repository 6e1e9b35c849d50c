"""Bad rows are left out up to the allowed share of a file's rows; more of them end the run."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory
from stages.prepare.files import RowSource, write_files
from tests.prepare.file_runs import parameters, quarantined, write
from tests.prepare.file_sources import jsonl, line, parquet


@pytest.mark.usefixtures("in_this_process")
def test_as_many_bad_rows_as_allowed(tmp_path: Path, source: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", 100, {number: b"{" for number in range(1, 30)})
    counts = write(tmp_path, RowSource(path, source / "images"), max_bad_fraction=0.29)  # times 100: 28.999999999999996
    assert counts["sft"]["quarantined"] == {"broken JSON": 29}


def test_too_many_bad_rows_end_the_run_at_once(tmp_path: Path, source: Path) -> None:
    broken = {1: b"3"} | {number: line(number - 1, image=f"没有{number}.jpg") for number in range(11, 300)}
    path = jsonl(tmp_path / "s.jsonl", 2000, broken)
    (tmp_path / "reports").mkdir()
    (tmp_path / "cache").write_text("of DVC's")
    (tmp_path / "reports/quarantine.jsonl").hardlink_to(tmp_path / "cache")
    with (
        pytest.raises(InputError) as caught,
        atomic_directory(tmp_path / "target") as folder,
    ):
        options = parameters(2, max_bad_fraction=0.01)
        quarantine = tmp_path / "reports/quarantine.jsonl"
        write_files(None, RowSource(path, source / "images"), [], options, folder, quarantine)
    assert re.fullmatch(
        r"s\.jsonl: 31 of the first 40 rows cannot be used, and data\.max_bad_fraction \(0\.01\) allows no "
        r"more than 20 of all 2000; most often: image missing; .*quarantine\.jsonl lists them",
        str(caught.value),
    )
    listed = quarantined(tmp_path)
    assert len(listed) == 31
    assert listed[0] == {"source": "s.jsonl", "line": 1, "reason": "line is not a JSON object"}
    assert (tmp_path / "cache").read_text() == "of DVC's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "reports", "s.jsonl"]


@pytest.mark.usefixtures("in_this_process")
def test_too_many_bad_rows_end_a_job(tmp_path: Path, source: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", 1000, {number: b"{" for number in range(1, 1000, 2)})
    with pytest.raises(InputError, match=r"11 of the first 21 rows .* no more than 10 of all 1000"):
        write(tmp_path, RowSource(path, source / "images"), shard_scenes=1000, max_bad_fraction=0.01)


@pytest.mark.usefixtures("in_this_process")
def test_too_many_bad_rows_end_a_job_of_several_shards(tmp_path: Path) -> None:
    path = parquet(tmp_path / "s.parquet", 200, False, conversations=pa.array(["{"] * 200))
    with pytest.raises(InputError, match=r"3 of the first 3 rows .* no more than 2 of all 200"):
        write(tmp_path, RowSource(path, None), shard_scenes=1, max_bad_fraction=0.01)


@pytest.mark.usefixtures("in_this_process")
def test_each_file_has_its_own_share_of_bad_rows(tmp_path: Path, source: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", 50, {number: b"{" for number in range(1, 4)})
    sft = RowSource(source / "sft.jsonl", source / "images")
    with pytest.raises(InputError, match=r"p\.jsonl: 3 of the first 3 rows .* no more than 2 of all 50"):
        write(tmp_path, sft, RowSource(path, source / "images"), max_bad_fraction=0.05)


@pytest.mark.usefixtures("in_this_process")
def test_blank_lines_do_not_raise_the_number_of_bad_rows_allowed(tmp_path: Path, source: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", 100, {1: b"{", 2: b"{"} | {number: b"" for number in range(60, 101)})
    with pytest.raises(InputError, match=r"2 of the first 59 rows .* no more than 1 of all 59"):
        write(tmp_path, RowSource(path, source / "images"), max_bad_fraction=0.02)
