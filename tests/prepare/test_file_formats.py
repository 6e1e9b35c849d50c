"""Parquet of both shapes and MiniMind-V's files are read: every row, its pictures and their names."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from stages.common.core.errors import InputError
from stages.prepare.files import RowSource
from tests.prepare.file_runs import ROOT, SPLITS, pictures_of, quarantined, rows_of, write
from tests.prepare.file_sources import PICTURES, dialogue, parquet, pictures_of_row

TINY = ROOT.parent / "shared/upstream/minimind-v-tiny"


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(("group", "shard_rows"), [(1000, 20), (1000, 3), (15, 20), (7, 20)])
def test_parquet_with_one_picture_or_a_placeholder_per_row(tmp_path: Path, group: int, shard_rows: int) -> None:
    path = parquet(tmp_path / "s.parquet", 130, False, group)
    counts = write(tmp_path, RowSource(path, None), shard_scenes=shard_rows)
    rows = [row for split in SPLITS for row in rows_of(tmp_path, split)]
    assert sorted(int(row["id"].removeprefix("s.parquet:")) for row in rows) == list(range(1, 131))
    for row in rows:
        number = int(row["id"].removeprefix("s.parquet:")) - 1
        expected = [{"bytes": PICTURES[index], "path": f"图{index}.jpg"} for index in pictures_of_row(number)[:1]]
        assert row["images"] == expected
        assert row["texts"][0]["question"] == dialogue(number, len(expected))[0]["content"]
    assert counts["sft"]["rows"] == 130 and not counts["sft"]["held_out"]


@pytest.mark.usefixtures("in_this_process")
def test_parquet_with_lists_of_pictures(tmp_path: Path) -> None:
    write(tmp_path, RowSource(parquet(tmp_path / "s.parquet", 130, True), None))
    rows = rows_of(tmp_path, "train")
    for row in rows:
        number = int(row["id"].removeprefix("s.parquet:")) - 1
        assert [image["bytes"] for image in row["images"]] == [PICTURES[index] for index in pictures_of_row(number)]
        assert [image["path"] for image in row["images"]] == [
            f"{row['id']}-{i}" for i in range(len(pictures_of_row(number)))
        ]
    assert {len(row["images"]) for row in rows} == {0, 1, 2}


@pytest.mark.usefixtures("in_this_process")
def test_parquet_with_more_names_than_pictures(tmp_path: Path) -> None:
    path = parquet(tmp_path / "s.parquet", 130, False, image_names=pa.array(["a.jpg, b.jpg"] * 130))
    assert not write(tmp_path, RowSource(path, None))["sft"]["quarantined"]
    assert all(i["path"] == f"{row['id']}-0" for row in rows_of(tmp_path, "train") for i in row["images"])


@pytest.mark.usefixtures("in_this_process")
def test_a_picture_is_in_the_same_split_in_both_formats(tmp_path: Path, source: Path) -> None:
    sft = RowSource(parquet(tmp_path / "s.parquet", 200, True), None)
    write(tmp_path, sft, RowSource(source / "pretrain.jsonl", source / "images.zip"))
    held_out = pictures_of(tmp_path, "validation") | pictures_of(tmp_path, "test")
    assert held_out and not held_out & pictures_of(tmp_path, "pretrain")


@pytest.mark.usefixtures("in_this_process")
def test_bad_rows_of_parquet(tmp_path: Path) -> None:
    texts = [json.dumps(dialogue(number, len(pictures_of_row(number)[:1]))).encode() for number in range(130)]
    texts[3], texts[8], texts[21], texts[34] = b"{", b"\xff\xfe", b"3", None
    raw = pa.array(texts, pa.binary())
    column = pa.StringArray.from_buffers(130, raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])  # not validated
    path = parquet(tmp_path / "s.parquet", 130, False, conversations=column)
    counts = write(tmp_path, RowSource(path, None), max_bad_fraction=0.1)
    assert [(row["line"], row["reason"]) for row in quarantined(tmp_path)] == [
        (4, "broken JSON"),
        (9, "broken UTF-8"),
        (22, "conversations missing or not a list"),
        (35, "conversations missing or not a list"),
    ]
    assert counts["sft"]["quarantined"] == {
        "conversations missing or not a list": 2,
        "broken JSON": 1,
        "broken UTF-8": 1,
    }
    assert next(iter(counts["sft"]["quarantined"].values())) == 2  # the most frequent first


@pytest.mark.skipif(not TINY.exists(), reason="needs shared/upstream/minimind-v-tiny beside the project")
@pytest.mark.usefixtures("in_this_process")
def test_rows_of_minimind_v(tmp_path: Path) -> None:
    for seed in range(100):  # six rows: some seed gives every split one
        try:
            sft = RowSource(TINY / "data.jsonl", TINY / "images")
            counts = write(tmp_path, sft, seed=seed, validation_scenes=2, test_scenes=2)
            break
        except InputError as error:
            assert "is in split" in str(error)
            for path in (tmp_path / "out").iterdir():
                path.unlink()
    assert sum(counts["sft"]["kept"].values()) == 6 and not counts["sft"]["quarantined"]
    rows = {row["id"]: row for split in SPLITS for row in rows_of(tmp_path, split)}
    for number, raw in enumerate((TINY / "data.jsonl").read_text("utf-8").splitlines(), 1):
        row = rows[f"data.jsonl:{number}"]
        contents = [turn["content"] for turn in json.loads(raw)["conversations"]]
        assert [part for text in row["texts"] for part in (text["question"], "".join(text["answer"]))] == contents
        assert row["images"][0]["bytes"] == (TINY / f"images/{number - 1}.png").read_bytes()
