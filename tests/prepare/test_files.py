"""Data files are converted to shards: complete rows, disjoint splits, reproducible bytes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import load_dataset

from stages.prepare.files import RowSource
from stages.prepare.splits import HELD_OUT, split_of
from tests.prepare.file_runs import SPLITS, pictures_of, quarantined, rows_of, write
from tests.prepare.file_sources import PICTURES, dialogue, pictures_of_row


def full_run(folder: Path, source: Path, processes: int, images: str) -> dict[str, Any]:
    sft = RowSource(source / "sft.jsonl", source / images)
    pretrain = RowSource(source / "pretrain.jsonl", source / images)
    return write(folder, sft, pretrain, [source / "images/图7.jpg"], processes=processes, seed=1)


@pytest.fixture(scope="module")
def full(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("full")
    return folder, full_run(folder, source, 1, "images.zip")


def test_any_number_of_processes_writes_the_same_bytes(full: Any, source: Path, tmp_path: Path) -> None:
    assert full_run(tmp_path, source, 2, "images") == full[1]  # and a folder holds what a zip holds
    names = sorted(path.name for path in (full[0] / "out").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert {name.partition("-")[0] for name in names} == {"pretrain", *SPLITS, "fixed"}
    assert "train-00009.parquet" in names and "pretrain-00007.parquet" in names
    assert all((full[0] / "out" / name).read_bytes() == (tmp_path / "out" / name).read_bytes() for name in names)
    assert quarantined(tmp_path) == quarantined(full[0])


def test_counts_add_up(full: Any) -> None:
    folder, counts = full
    assert {role: counts[role]["rows"] for role in ("sft", "pretrain")} == {"sft": 200, "pretrain": 150}
    for of_role, splits in ((counts["sft"], SPLITS), (counts["pretrain"], ("pretrain",))):
        assert of_role["kept"] == {split: len(rows_of(folder, split)) for split in splits}
        bad = sum(of_role["quarantined"].values())
        assert of_role["rows"] == sum(of_role["kept"].values()) + of_role["held_out"] + bad
    assert counts["sft"]["file"] == "sft.jsonl" and counts["photographs"] == 1
    assert json.loads(json.dumps(counts)) == counts


def test_quarantined_rows_are_listed_in_order(full: Any) -> None:
    reasons = ["broken JSON", "image path outside the folder: ../x.jpg", "no assistant turn"]
    assert quarantined(full[0]) == [
        *({"source": "sft.jsonl", "line": n, "reason": r} for n, r in zip((3, 77, 200), reasons, strict=True)),
        {"source": "pretrain.jsonl", "line": 5, "reason": "number of <image> tokens differs from the number of images"}
        if len(pictures_of_row(1004)) != 2
        else {"source": "pretrain.jsonl", "line": 5, "reason": "image missing: none.jpg"},
    ]
    assert list(full[1]["sft"]["quarantined"].values()) == [1, 1, 1]


def test_rows_are_complete_and_in_order(full: Any) -> None:
    for split, name in (("train", "sft"), ("pretrain", "pretrain")):
        lines = [int(row["id"].removeprefix(f"{name}.jsonl:")) for row in rows_of(full[0], split)]
        assert lines == sorted(lines) and len(lines) > 50
        for row, number in zip(rows_of(full[0], split), lines, strict=True):
            number += -1 if split == "train" else 999
            assert [image["bytes"] for image in row["images"]] == [PICTURES[index] for index in pictures_of_row(number)]
            assert [image["path"] for image in row["images"]] == [f"图{index}.jpg" for index in pictures_of_row(number)]
            assert [text["question"] for text in row["texts"]] == [
                dialogue(number, len(pictures_of_row(number)))[0]["content"]
            ]
            assert row["texts"][0]["answer"] == [f"答{number}。", "再答。"]


def test_no_picture_is_in_two_splits(full: Any) -> None:
    folder, counts = full
    shown = {split: pictures_of(folder, split) for split in (*SPLITS, "pretrain")}
    assert all(shown.values())
    assert not shown["train"] & shown["test"] and not shown["train"] & shown["validation"]
    assert not shown["validation"] & shown["test"]
    assert not shown["pretrain"] & (shown["validation"] | shown["test"]) and shown["pretrain"] & shown["train"]
    assert counts["pretrain"]["held_out"] > 5 and counts["sft"]["held_out"] > 0
    held_out = [row for split in ("validation", "test") for row in rows_of(folder, split)]
    assert any(not row["images"] for row in held_out) and any(not row["images"] for row in rows_of(folder, "train"))


def test_datasets_opens_the_shards(full: Any, tmp_path: Path) -> None:
    found = sorted(str(path) for path in (full[0] / "out").glob("train-*.parquet"))
    rows = load_dataset("parquet", data_files=found, split="train", cache_dir=str(tmp_path))
    assert len(rows) == full[1]["sft"]["kept"]["train"]
    assert rows[0]["images"][0].size == (24, 20)


def test_the_zip_index_is_removed(full: Any) -> None:
    assert all(path.suffix == ".parquet" for path in (full[0] / "out").iterdir())


def test_split_sizes_are_as_requested() -> None:
    hash_fractions = np.random.default_rng(1).random(20_000)
    found = Counter(split_of([hash_fraction], (0.1, 0.05)) for hash_fraction in hash_fractions)
    assert found["test"] == pytest.approx(2000, rel=0.1) and found["validation"] == pytest.approx(1000, rel=0.1)
    assert split_of([0.05, 0.09], (0.1, 0.05)) == "test" and split_of([0.1, 0.149], (0.1, 0.05)) == "validation"
    assert split_of([0.05, 0.11], (0.1, 0.05)) == split_of([0.05, 0.5], (0.1, 0.05)) == HELD_OUT


@pytest.mark.usefixtures("in_this_process")
def test_the_seed_changes_the_splits(source: Path, tmp_path: Path) -> None:
    sft = RowSource(source / "sft.jsonl", source / "images")
    found = []
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        write(tmp_path / str(seed), sft, seed=seed)
        found.append(pictures_of(tmp_path / str(seed), "test"))
    assert found[0] != found[1]


@pytest.mark.usefixtures("in_this_process")
def test_max_rows(tmp_path: Path, source: Path) -> None:
    sft = RowSource(source / "sft.jsonl", source / "images")
    counts = write(tmp_path, sft, RowSource(source / "pretrain.jsonl", source / "images"), max_rows=70)
    assert counts["sft"]["rows"] == counts["pretrain"]["rows"] == 70
