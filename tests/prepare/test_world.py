"""The built-in world: the same bytes every time, disjoint splits, true texts and truths."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from datasets import load_dataset

from stages.common.errors import InputError
from stages.common.files import whole_folder
from stages.common.params import Params, load_params
from stages.common.shards import read_rows
from stages.common.world import KINDS, Scene, held_out_pairs
from stages.prepare.scene import sample_scene, signature
from stages.prepare.wording import texts_of
from stages.prepare.world import FIXED_SCENES, fixed_scenes, write_world

ROOT = Path(__file__).parents[2]


def small(processes: int, scenes: int = 30) -> Params:
    params = load_params(ROOT / "params.yaml")
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
    assert rows[0]["image"].size == (48, 48)
    assert Scene.from_json(rows[3]["scene"]).id == rows[3]["id"] == "train-0000003"


def test_more_scenes_leave_the_first_ones_as_they_were(world: Path, tmp_path: Path) -> None:
    write_world(small(1, scenes=40), tmp_path)
    shard = "train-00001.parquet"
    assert (world / shard).read_bytes() == (tmp_path / shard).read_bytes()


def scenes(split: str, count: int = 400) -> list[Scene]:
    data = load_params(ROOT / "params.yaml").data
    return [sample_scene(data, 1, split, index) for index in range(count)]


def test_splits_share_no_scene_and_hold_pairs_back() -> None:
    held_out = held_out_pairs(1, 1)
    assert len(held_out) == len(KINDS)
    split = {name: scenes(name) for name in ("train", "validation", "test")}
    signs = {name: {signature(scene) for scene in found} for name, found in split.items()}
    assert not signs["train"] & signs["test"] and not signs["train"] & signs["validation"]
    assert not signs["validation"] & signs["test"]
    pairs = {name: [(g.kind, g.colour) for scene in found for g in scene.groups] for name, found in split.items()}
    assert not held_out & {*pairs["train"], *pairs["validation"]}
    share = sum(pair in held_out for pair in pairs["test"]) / len(pairs["test"])
    assert 0.05 < share < 0.2  # one colour of eight


def test_truth_holds_by_geometry() -> None:
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


def test_backgrounds_have_kinds_they_favour() -> None:
    found = scenes("train", 1500)
    rockets = [scene.background for scene in found if "rocket" in scene.kinds]
    at_home = sum(background in KINDS["rocket"].homes for background in rockets) / len(rockets)
    assert at_home > 0.4  # two of nine backgrounds


def test_texts_use_the_right_measure_words_and_grow() -> None:
    for index, scene in enumerate(scenes("train", 100)):
        for text in texts_of(scene, random.Random(index)):
            joined = "".join(text.answer)
            assert joined.endswith("。") and "{" not in joined
            if text.task == "caption":
                for group in scene.groups[:3]:
                    assert f"{'一两三'[group.count - 1]}{KINDS[group.kind].measure}" in joined
            if text.task == "description":
                assert len(text.answer) >= len(scene.groups) + 5


def test_yes_no_questions_come_in_pairs_of_three_kinds(world: Path) -> None:
    for row in read_rows("test", ["scene", "texts"], root=world):
        kinds = Scene.from_json(row["scene"]).kinds
        asked = [t for t in row["texts"] if t["task"] in ("random", "popular", "adversarial")]
        assert [t["expected"] for t in asked] == ["yes", "no"] * 3
        assert all((t["kind"] in kinds) == (t["expected"] == "yes") for t in asked)


def test_the_eight_fixed_scenes() -> None:
    found = fixed_scenes(ROOT / FIXED_SCENES)
    assert len(found) == 8 and all(scene.groups for scene in found)


def test_a_fixed_scene_that_cannot_be_drawn(tmp_path: Path) -> None:
    text = (ROOT / FIXED_SCENES).read_text(encoding="utf-8").replace("kind: panda", "kind: unicorn")
    (tmp_path / "scenes.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"熊猫草地-panda-grassland: the world has no white unicorn"):
        fixed_scenes(tmp_path / "scenes.yaml")


def test_an_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with whole_folder(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError), whole_folder(target) as folder:
        (folder / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["out"]
