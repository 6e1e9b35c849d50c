"""Data files are converted to shards: both formats, disjoint splits, reproducible bytes, one-line errors."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory
from stages.common.data.shards import read_rows
from stages.prepare import files, workers
from stages.prepare.files import RowSource, write_files
from stages.prepare.images import Images
from stages.prepare.quarantine import BadRow
from stages.prepare.sources import plan_jobs, raw_rows
from stages.prepare.splits import HELD_OUT, split_of
from tests.prepare.test_archive import make_zip

ROOT = Path(__file__).parents[2]
TINY = ROOT.parent / "shared/upstream/minimind-v-tiny"


def picture(seed: int) -> bytes:
    colours = np.random.default_rng(seed).integers(0, 255, (3, 3, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).resize((24, 20)).save(buffer, format="JPEG")
    return buffer.getvalue()


PICTURES = [picture(seed) for seed in range(60)]
BLACK = io.BytesIO()
Image.new("RGB", (8, 8)).save(BLACK, format="JPEG")


def dialogue(number: int, pictures: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": "<image>" * pictures + f"第{number}问"},
        {"role": "assistant", "content": f"答{number}。再答。"},
    ]


def pictures_of_row(number: int) -> list[int]:
    """Pictures of row ``number``: one, shared by several rows; sometimes two; sometimes none."""
    if number % 10 == 9:
        return []
    return [number % 60, (number + 7) % 60] if number % 10 == 4 else [number % 60]


def line(number: int, **changes: Any) -> bytes:
    names = ",".join(f"图{index}.jpg" for index in pictures_of_row(number))
    row = (
        {"conversations": dialogue(number, len(pictures_of_row(number)))}
        | ({"image": names} if names else {})
        | changes
    )
    return json.dumps(row, ensure_ascii=False).encode()


def jsonl(path: Path, rows: int, broken: dict[int, bytes] | None = None, start: int = 0) -> Path:
    lines = [(broken or {}).get(number, line(start + number - 1)) for number in range(1, rows + 1)]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def folder_of_images(path: Path) -> Path:
    path.mkdir()
    for number, data in enumerate(PICTURES):
        (path / f"图{number}.jpg").write_bytes(data)
    return path


def zip_of_images(path: Path) -> Path:
    return make_zip(path, {f"pretrain_images/图{number}.jpg": data for number, data in enumerate(PICTURES)})


def parquet(path: Path, rows: int, lists: bool, group: int = 1000, **columns: Any) -> Path:
    """Both shapes: strings with one picture or placeholder each, or lists with lists of pictures."""
    pictures = [pictures_of_row(number) if lists else pictures_of_row(number)[:1] for number in range(rows)]
    dialogues = [dialogue(number, len(indices)) for number, indices in enumerate(pictures)]
    if lists:
        table = pa.table({"conversations": dialogues, "image_bytes": [[PICTURES[i] for i in row] for row in pictures]})
    else:
        table = pa.table(
            {
                "conversations": [json.dumps(turns, ensure_ascii=False) for turns in dialogues],
                "image_bytes": [PICTURES[row[0]] if row else BLACK.getvalue() for row in pictures],
                "image_names": [f"图{row[0]}.jpg" if row else "black.jpg" for row in pictures],
            }
        )
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, path, row_group_size=group)
    return path


def parameters(processes: int = 1, seed: int = 1, **data: Any) -> Params:
    params = load_params(ROOT / "tests/params.yaml")
    small = {"source": "minimind", "resize": False, "shard_scenes": 20, "validation_scenes": 20, "test_scenes": 20}
    return params.model_copy(
        update={
            "seed": seed,
            "data": params.data.model_copy(update=small | data),
            "machine": params.machine.model_copy(update={"processes": processes}),
        }
    )


def run_here(tasks: list[workers.Task], _: int) -> Any:
    yield from ((task, workers.run_task(task)) for task in tasks)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process takes half a second."""
    monkeypatch.setattr(files, "run_tasks", run_here)


def write(
    tmp_path: Path,
    sft: RowSource,
    pretrain: RowSource | None = None,
    photographs: Sequence[Path] = (),
    **options: Any,
) -> dict[str, Any]:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    return write_files(pretrain, sft, photographs, parameters(**options), out, tmp_path / "reports/quarantine.jsonl")


def rows_of(tmp_path: Path, split: str) -> list[dict[str, Any]]:
    return list(read_rows(split, ["id", "images", "texts"], root=tmp_path / "out"))


def quarantined(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "reports/quarantine.jsonl").read_text("utf-8").splitlines()]


SPLITS = ("train", "validation", "test")


# -------------------------------------------------------------------------------------------------------- full runs


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    jsonl(folder / "sft.jsonl", 200, {3: b"{", 77: line(76, image="../x.jpg"), 200: line(199, conversations=[])})
    jsonl(folder / "pretrain.jsonl", 150, {5: line(4, image="none.jpg,图1.jpg")}, start=1000)
    zip_of_images(folder / "images.zip")
    folder_of_images(folder / "images")
    return folder


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


def pictures_of(folder: Path, split: str) -> set[bytes]:
    return {image["bytes"] for row in rows_of(folder, split) for image in row["images"]}


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


# ------------------------------------------------------------------------------------------------------------ splits


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


# ----------------------------------------------------------------------------------------------------------- formats


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


@pytest.mark.usefixtures("in_this_process")
def test_max_rows(tmp_path: Path, source: Path) -> None:
    sft = RowSource(source / "sft.jsonl", source / "images")
    counts = write(tmp_path, sft, RowSource(source / "pretrain.jsonl", source / "images"), max_rows=70)
    assert counts["sft"]["rows"] == counts["pretrain"]["rows"] == 70


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


# ------------------------------------------------------------------------------------------------------- photographs


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("resize", [False, True])
def test_photographs(tmp_path: Path, source: Path, resize: bool) -> None:
    photographs = [source / "images/图2.jpg", source / "images/图11.jpg", source / "images/图1.jpg"]
    sft = RowSource(source / "sft.jsonl", source / "images")
    assert write(tmp_path, sft, photographs=photographs, resize=resize)["photographs"] == 3
    rows = rows_of(tmp_path, "fixed")
    assert [row["id"] for row in rows] == ["图1", "图11", "图2"] and not any(row["texts"] for row in rows)
    assert [row["images"][0]["path"] for row in rows] == ["图1.jpg", "图11.jpg", "图2.jpg"]
    sizes = {Image.open(io.BytesIO(row["images"][0]["bytes"])).size for row in rows}
    assert sizes == {(96, 96) if resize else (24, 20)}
    assert {Image.open(io.BytesIO(data)).size for data in pictures_of(tmp_path, "train")} == sizes


def test_bad_photographs(tmp_path: Path, source: Path) -> None:
    sft = RowSource(source / "sft.jsonl", source / "images")
    (tmp_path / "bad.jpg").write_bytes(PICTURES[0][:-50])
    (tmp_path / "图1.png").write_bytes(PICTURES[0])
    for photographs, message in (
        ([tmp_path / "bad.jpg"], r"bad\.jpg cannot be used: picture that cannot be decoded; replace it"),
        ([tmp_path / "none.jpg"], r"none\.jpg cannot be read: No such file"),
        ([tmp_path / "图1.png", source / "images/图1.jpg"], "two photographs are called 图1; rename one"),
    ):
        with pytest.raises(InputError, match=message):
            write(tmp_path, sft, photographs=photographs)
    with pytest.raises(InputError, match=r"图1\.jpg cannot be used: picture with more than 400 pixels"):
        write(tmp_path, sft, photographs=[source / "images/图1.jpg"], max_pixels=400)


# ------------------------------------------------------------------------------------------------------------ errors


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


RUN = """
import sys
from pathlib import Path
from stages.common.core.files import atomic_directory
from stages.prepare.files import RowSource, write_files
from tests.prepare.test_files import parameters
if __name__ == "__main__":
    here = Path(sys.argv[1])
    with atomic_directory(here / "target") as folder:
        params = parameters(2, shard_scenes=int(sys.argv[2]))
        write_files(None, RowSource(here / "s.jsonl", here / "images"), [], params, folder, here / "q.jsonl")
"""


@pytest.fixture
def long_run(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A run of some minutes, well under way, with one bad row; the parameter is the number of rows in a job."""
    (tmp_path / "run.py").write_text(RUN, "utf-8")
    folder_of_images(tmp_path / "images")
    (tmp_path / "s.jsonl").write_bytes(b"{\n" + (line(0) + b"\n" + line(9) + b"\n") * 50_000)
    Image.new("RGB", (800, 800)).save(tmp_path / "images/图0.jpg")
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path), str(request.param)]
    run = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    shards = 1 if request.param > 1000 else 20
    wait_for(lambda: len(list((tmp_path / ".target.partial").glob("train-*"))) >= shards)
    yield run
    run.kill()
    run.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError


def children(run: subprocess.Popen) -> list[Path]:
    found = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    return [Path("/proc", child) for child in found]


@pytest.mark.parametrize("long_run", [20, 300_000], indirect=True)
def test_an_interrupt_ends_all_processes_and_leaves_no_folder(long_run: subprocess.Popen, tmp_path: Path) -> None:
    processes = children(long_run)
    assert len(processes) >= 2
    for number in [int(path.name) for path in processes] + [long_run.pid]:  # as a terminal does
        os.kill(number, signal.SIGINT)
    message = long_run.communicate(timeout=30)[1]
    assert long_run.returncode not in (0, None) and message.rstrip().endswith("KeyboardInterrupt")
    if "20" in long_run.args:  # a process that is still starting prints the interrupt, too
        assert message.count("Traceback") == 1
    wait_for(lambda: not any(path.exists() for path in processes))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "q.jsonl", "run.py", "s.jsonl"]


@pytest.mark.parametrize("long_run", [20], indirect=True)
def test_a_killed_process_is_a_one_line_error(long_run: subprocess.Popen, tmp_path: Path) -> None:
    worker = next(path for path in children(long_run) if b"spawn_main" in (path / "cmdline").read_bytes())
    os.kill(int(worker.name), signal.SIGKILL)
    message = long_run.communicate(timeout=30)[1]
    assert "a process of stage prepare was killed, perhaps because memory ran out" in message.splitlines()[-1]
    assert not (tmp_path / ".target.partial").exists()


@pytest.mark.parametrize("long_run", [20, 300_000], indirect=True)
def test_processes_end_with_their_parent(long_run: subprocess.Popen, tmp_path: Path) -> None:
    processes = children(long_run)
    if "20" in long_run.args:
        wait_for(lambda: (tmp_path / "q.jsonl").read_text().endswith("}\n"))  # complete lines at any moment
    long_run.kill()
    wait_for(lambda: not any(path.exists() for path in processes))
