"""The built-in world in shards: reproducible bytes, fixed scenes, and nothing half-written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory
from stages.common.data.shards import read_rows
from stages.common.world.scene import Scene
from stages.common.world.vocabulary import (
    ATTRIBUTION,
)
from stages.prepare.scene import signature
from stages.prepare.world import FIXED_SCENES, fixed_scenes, write_world
from tests.prepare.worlds import ROOT, small


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(small(1), folder)
    return folder


def test_any_number_of_processes_writes_the_same_bytes(world: Path, tmp_path: Path) -> None:
    write_world(small(2), tmp_path)
    names = sorted(path.name for path in world.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir()) and len(names) == 6
    assert all((world / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_datasets_opens_the_shards(world: Path, tmp_path: Path) -> None:
    files = [str(path) for path in sorted(world.glob("train-*.parquet"))]
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(rows) == 30
    assert rows[0]["images"][0].size == (48, 48)
    assert Scene.from_json(rows[3]["scene"]).id == rows[3]["id"] == "train-0000003"


def test_more_scenes_do_not_change_earlier_shards(world: Path, tmp_path: Path) -> None:
    write_world(small(1, scenes=40), tmp_path)
    shard = "train-00001.parquet"
    assert (world / shard).read_bytes() == (tmp_path / shard).read_bytes()


def test_only_train_texts_have_unsupported_mentions(world: Path) -> None:
    false = {
        split: any(
            "unsupported:" in claim for row in read_rows(split, ["texts"], root=world) for claim in claims_of(row)
        )
        for split in ("train", "validation", "test", "fixed")
    }
    assert false == {"train": True, "validation": False, "test": False, "fixed": False}


def claims_of(row: dict) -> list[str]:
    return [claim for text in row["texts"] for claims in text["claims"] for claim in claims]


def test_shards_name_the_licence_of_the_drawings(world: Path) -> None:
    for path in world.iterdir():
        metadata = pq.read_schema(path).metadata
        assert metadata[b"attribution"].decode() == ATTRIBUTION and "CC BY-SA 4.0" in ATTRIBUTION
        assert b"huggingface" in metadata


def test_shards_contain_none_of_the_fixed_scenes(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [Scene.from_json(row["scene"]) for row in read_rows("train", ["scene"], root=world)]
    monkeypatch.setattr("stages.prepare.world.fixed_scenes", lambda _: [drawn[7]])
    write_world(small(1), tmp_path)
    again = [Scene.from_json(row["scene"]) for row in read_rows("train", ["scene"], root=tmp_path)]
    assert signature(drawn[7]) not in map(signature, again) and again[:7] == drawn[:7]


def test_yes_no_questions_are_pairs_of_three_tasks(world: Path) -> None:
    for row in read_rows("test", ["scene", "texts"], root=world):
        kinds = Scene.from_json(row["scene"]).kinds
        asked = [t for t in row["texts"] if t["task"] in ("random", "popular", "adversarial")]
        assert [t["expected"] for t in asked] == ["yes", "no"] * 3
        assert all((t["kind"] in kinds) == (t["expected"] == "yes") for t in asked)


def test_the_eight_fixed_scenes() -> None:
    found = fixed_scenes(ROOT / FIXED_SCENES)
    assert len(found) == 8 and all(scene.groups for scene in found)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: panda", "kind: sphinx", "scene 熊猫草地-panda-grassland: the world has no sphinx"),
        ("  background: street\n", "", "scene 城市车水马龙-city-traffic: background: Field required"),
        ("cells: [[1, 0]]", "cells: [[1, 5]]", "city-traffic: groups.0.cells.0.1: Input should be 0, 1 or 2"),
        ("kind: bus,", "kind: car,", "city-traffic: two groups of car"),
        ("background: street", "background: strand", "city-traffic: unknown background 'strand'"),
        ("background: street", "background: [", "cannot be read"),
        ("cells: [[1, 0]]", "cells: [[2, 0]]", "city-traffic: two objects in the same cell"),
        ("cells: [[2, 0], [2, 1]]", "cells: [[2, 0], [0, 1]]", "city-traffic: cells of car are in different rows"),
    ],
)
def test_a_fixed_scene_that_cannot_be_drawn(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = (ROOT / FIXED_SCENES).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "scenes.yaml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(message)):
        fixed_scenes(tmp_path / "scenes.yaml")


def test_an_output_folder_is_complete_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_directory(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_directory(target) as folder:
        (folder / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="child processes are found through /proc")
def test_worker_processes_end_when_the_stage_is_killed(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "tests/params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    shutil.copytree(ROOT / "data/eval", tmp_path / "data/eval")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [sys.executable, "-m", "stages.prepare"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("data/.prepared.partial/train-*")):
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.05)
    children = [
        Path("/proc") / number for number in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    ]
    run.kill()
    run.wait()
    while any(child.exists() and "zombie" not in (child / "status").read_text() for child in children):
        assert time.monotonic() < deadline, "a process is still running"
        time.sleep(0.05)
    assert len(children) > 1
