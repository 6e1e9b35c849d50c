"""The built-in world: reproducible bytes, disjoint splits, texts and ground truth that match the scenes."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import load_dataset

from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory
from stages.common.data.chat import Encoder
from stages.common.data.shards import read_rows
from stages.common.world.scene import Scene, held_out_pairs
from stages.common.world.vocabulary import COLOUR_WORDS, COLOURS, KINDS, POSITION_WORDS
from stages.prepare.scene import sample_scene, signature
from stages.prepare.wording import texts_of
from stages.prepare.world import FIXED_SCENES, fixed_scenes, write_world
from stages.tokenizer import train_tokenizer

ROOT = Path(__file__).parents[2]


def small(processes: int, scenes: int = 30) -> Params:
    params = load_params(ROOT / "tests/params.yaml")
    sizes = {"train_scenes": scenes, "validation_scenes": 8, "test_scenes": 8, "shard_scenes": 10, "image_size": 48}
    return params.model_copy(
        update={
            "data": params.data.model_copy(update=sizes),
            "machine": params.machine.model_copy(update={"processes": processes}),
        }
    )


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


def scenes(split: str, count: int = 400) -> list[Scene]:
    data = load_params(ROOT / "tests/params.yaml").data
    return [sample_scene(data, 1, split, index) for index in range(count)]


def test_splits_share_no_scene_and_only_test_has_held_out_pairs() -> None:
    held_out = held_out_pairs(1, 1)
    assert len(held_out) == len(KINDS)
    split = {name: scenes(name) for name in ("train", "validation", "test")}
    signatures = {name: {signature(scene) for scene in found} for name, found in split.items()}
    assert not signatures["train"] & signatures["test"] and not signatures["train"] & signatures["validation"]
    assert not signatures["validation"] & signatures["test"]
    pairs = {name: [(g.kind, g.colour) for scene in found for g in scene.groups] for name, found in split.items()}
    assert not held_out & {*pairs["train"], *pairs["validation"]}
    share = sum(pair in held_out for pair in pairs["test"]) / len(pairs["test"])
    assert 0.05 < share < 0.2  # one colour of eight


def test_relations_and_counts_match_the_boxes() -> None:
    for scene in scenes("train", 300):
        assert len({group.kind for group in scene.groups}) == len(scene.groups)
        for group in scene.groups:
            assert group.count == len(group.boxes)
            assert all(0 <= low < high <= 1 for x0, y0, x1, y1 in group.boxes for low, high in ((x0, x1), (y0, y1)))
        for subject, relation, anchor in scene.relations:
            a, b = scene.groups[subject].boxes[0], scene.groups[anchor].boxes[0]
            if relation == "beside":
                assert scene.groups[subject].row == scene.groups[anchor].row and a[0] < b[0]
            elif relation == "on":
                assert a[3] == pytest.approx(b[1] + 0.02, abs=0.001) and KINDS[scene.groups[anchor].kind].support
            else:
                assert a[1] > b[1] and KINDS[scene.groups[anchor].kind].shelter


def test_kinds_are_more_frequent_on_their_home_backgrounds() -> None:
    found = scenes("train", 1500)
    rockets = [scene.background for scene in found if "rocket" in scene.kinds]
    at_home = sum(background in KINDS["rocket"].homes for background in rockets) / len(rockets)
    assert at_home > 0.4  # two of nine backgrounds


def test_texts_have_the_right_measure_words_and_lengths() -> None:
    for index, scene in enumerate(scenes("train", 100)):
        for text in texts_of(scene, random.Random(index)):
            joined = "".join(text.answer)
            assert joined.endswith("。") and "{" not in joined
            if text.task == "caption":
                for group in scene.groups[:3]:
                    assert f"{'一两三'[group.count - 1]}{KINDS[group.kind].measure}" in joined
            if text.task == "description":
                assert len(text.answer) >= len(scene.groups) + 5


MEASURES = {
    **dict.fromkeys(("小狗", "小猫", "熊猫", "兔子", "小鸟", "蝴蝶"), "只"),
    **dict.fromkeys(("女士", "老人", "舞者"), "位"),
    **dict.fromkeys(("汽车", "公交车", "自行车"), "辆"),
    **dict.fromkeys(("椅子", "雨伞"), "把"),
    **dict.fromkeys(("皮球", "气球"), "个"),
    **{"鱼": "条", "宇航员": "名", "帆船": "艘", "飞机": "架", "火箭": "枚", "图书": "本", "房子": "座", "大树": "棵"},
    **{"鲜花": "朵", "彩虹": "道"},
}


def test_measure_words() -> None:
    words = {word: kind.measure for kind in KINDS.values() for word in kind.words}
    assert {word: words[word] for word in MEASURES} == MEASURES and len(MEASURES) == len(KINDS)


def test_the_fullest_descriptions_are_longer_than_256_tokens() -> None:
    """`-S sft.max_len=256`, the example in the documentation, includes more text than the default, but not all."""
    texts = [text for index, scene in enumerate(scenes("train", 600)) for text in texts_of(scene, random.Random(index))]
    corpus = (part for text in texts for part in (f"user\n{text.question}", "assistant\n" + "".join(text.answer)))
    params = load_params(ROOT / "tests/params.yaml")
    encoder = Encoder(train_tokenizer(corpus, params.tokenizer))
    lengths = [sum(len(encoder.ids(part)) for part in text.answer) for text in texts if text.task == "description"]
    assert max(lengths) > 256 and sum(length > 2 * params.sft.max_len for length in lengths) > 0.1 * len(lengths)


def test_a_positive_answer_includes_position_and_colour() -> None:
    for index, scene in enumerate(scenes("train", 50)):
        groups = {group.kind: group for group in scene.groups}
        for text in texts_of(scene, random.Random(index)):
            if text.expected == "yes":
                group = groups[text.kind]
                assert any(place in text.answer[0] for place in POSITION_WORDS[group.row, group.column])
                assert any(colour in text.answer[0] for colour in COLOUR_WORDS[group.colour])


def test_sampling_skips_the_fixed_scenes() -> None:
    data = load_params(ROOT / "tests/params.yaml").data
    scene = sample_scene(data, 1, "train", 7)
    other = sample_scene(data, 1, "train", 7, frozenset({signature(scene)}))
    assert signature(other) != signature(scene) and other.id == scene.id


def test_shards_contain_none_of_the_fixed_scenes(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [Scene.from_json(row["scene"]) for row in read_rows("train", ["scene"], root=world)]
    monkeypatch.setattr("stages.prepare.world.fixed_scenes", lambda _: [drawn[7]])
    write_world(small(1), tmp_path)
    again = [Scene.from_json(row["scene"]) for row in read_rows("train", ["scene"], root=tmp_path)]
    assert signature(drawn[7]) not in map(signature, again) and again[:7] == drawn[:7]


def test_a_split_with_too_few_scenes_is_a_one_line_error() -> None:
    data = load_params(ROOT / "tests/params.yaml").data.model_copy(update={"held_out_colours": len(COLOURS)})
    with pytest.raises(InputError, match=r"data\.held_out_colours: 8 allows too few scenes in the train split"):
        sample_scene(data, 1, "train", 0)


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
        ("kind: panda", "kind: unicorn", "scene 熊猫草地-panda-grassland: the world has no white unicorn"),
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
