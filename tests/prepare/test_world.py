"""The built-in world: reproducible bytes, disjoint splits, texts and ground truth that match the scenes."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import mean

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory
from stages.common.data.chat import Encoder
from stages.common.data.shards import read_rows
from stages.common.world.scene import Scene, held_out_pairs
from stages.common.world.vocabulary import (
    ATTRIBUTION,
    COLOUR_WORDS,
    FAR_WORDS,
    KINDS,
    KINDS_FILE,
    NEAR_SIZE,
    PAINTS,
    POSITION_WORDS,
    kind_weights,
    load_kinds,
)
from stages.prepare.kind_pool import KindPool
from stages.prepare.scene import sample_scene, signature
from stages.prepare.wording import Prior, Text, texts_of
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


DATA = load_params(ROOT / "tests/params.yaml").data
PRIOR = Prior(DATA.kinds, DATA.zipf_exponent, 0.0)


@cache
def scenes(split: str, count: int = 400, **changes: object) -> tuple[Scene, ...]:
    data = DATA.model_copy(update=changes)
    return tuple(sample_scene(data, 1, split, index) for index in range(count))


def texts(scene: Scene, prior: Prior = PRIOR) -> list[Text]:
    return texts_of(scene, prior, random.Random(scene.id))


def descriptions(prior: Prior) -> Iterator[tuple[Scene, Text]]:
    for scene in scenes("train"):
        yield from ((scene, text) for text in texts(scene, prior) if text.task in ("description", "far_first"))


def test_splits_share_no_scene_and_only_test_has_held_out_pairs() -> None:
    held_out = held_out_pairs(1, 1)
    recolourable = {name for name, kind in KINDS.items() if kind.recolour}
    assert {kind for kind, _ in held_out} == recolourable and len(held_out) == len(recolourable)
    split = {name: scenes(name) for name in ("train", "validation", "test")}
    signatures = {name: {signature(scene) for scene in found} for name, found in split.items()}
    assert not signatures["train"] & signatures["test"] and not signatures["train"] & signatures["validation"]
    assert not signatures["validation"] & signatures["test"]
    pairs = {name: [(g.kind, g.colour) for scene in found for g in scene.groups] for name, found in split.items()}
    assert not held_out & {*pairs["train"], *pairs["validation"]}
    painted = [pair for pair in pairs["test"] if pair[0] in recolourable]
    assert 0.05 < sum(pair in held_out for pair in painted) / len(painted) < 0.2  # one colour of eight


def test_near_and_far_things_have_the_numbers_and_sizes_of_the_parameters() -> None:
    numbers = set()
    for scene in scenes("train"):
        numbers.add((len(scene.near), len(scene.far)))
        assert scene.groups == (*scene.near, *scene.far)
        assert sum(group.count for group in scene.far) <= 8
        assert len(scene.kinds) == len(scene.groups)
        assert scene.kinds <= set(list(KINDS)[: DATA.kinds])
        for groups, (low, high) in ((scene.near, DATA.near_sizes), (scene.far, DATA.far_sizes)):
            assert list(groups) == sorted(groups, key=lambda group: (group.row, group.column))
            for group in groups:
                assert all(
                    low - 2e-4 <= box[axis + 2] - box[axis] <= high + 2e-4 for box in group.boxes for axis in (0, 1)
                )
        assert all(KINDS[group.kind].size >= 0.2 for group in scene.near)
    assert {near for near, _ in numbers} == {1, 2, 3, 4} and {far for _, far in numbers} == {0, 1, 2, 3, 4}


def test_far_things_overlap_nothing() -> None:
    for scene in scenes("train"):
        boxes = [box for group in (*scene.far, *scene.near) for box in group.boxes]
        for far, other in combinations(boxes, 2):
            if far in boxes[: sum(group.count for group in scene.far)]:
                assert far[2] <= other[0] or other[2] <= far[0] or far[3] <= other[1] or other[3] <= far[1], scene.id


def test_relations_and_counts_match_the_boxes() -> None:
    for scene in scenes("train"):
        for group in scene.groups:
            assert group.count == len(group.boxes)
            assert all(0 <= low < high <= 1 for x0, y0, x1, y1 in group.boxes for low, high in ((x0, x1), (y0, y1)))
            x = sum(box[0] + box[2] for box in group.boxes) / (2 * group.count)
            y = sum(box[1] + box[3] for box in group.boxes) / (2 * group.count)
            if not group.near:
                assert (group.row, group.column) == (int(y * 3), int(x * 3))
        for subject, relation, anchor in scene.relations:
            a, b = scene.groups[subject].boxes[0], scene.groups[anchor].boxes[0]
            if relation == "beside":
                assert scene.groups[subject].row == scene.groups[anchor].row and a[0] < b[0]
            elif relation == "on":
                assert a[3] == pytest.approx(b[1] + 0.02, abs=0.001) and KINDS[scene.groups[anchor].kind].support
            else:
                assert a[1] > b[1] and KINDS[scene.groups[anchor].kind].shelter


def test_a_colour_is_the_natural_one_or_one_of_the_paints() -> None:
    for scene in scenes("train"):
        for group in scene.groups:
            kind = KINDS[group.kind]
            assert group.colour in (PAINTS if kind.recolour else (kind.colour,))


def test_frequencies_of_kinds_fall_off_with_their_rank() -> None:
    # Scenes with held-out colours are sampled again: kinds that can be recoloured would be less frequent.
    found = scenes("train", 3000, home_weight=1.0, near_weights=(1.0,), far_weights=(0.0, 1.0), held_out_colours=0)
    drawn = Counter(group.kind for scene in found for group in scene.far)
    weights = kind_weights(DATA.kinds, DATA.zipf_exponent)
    near = {kind: weight for kind, weight in weights.items() if KINDS[kind].size >= NEAR_SIZE}
    names = list(weights)
    for first, last in ((0, 10), (10, 40), (40, DATA.kinds)):
        # The near kind, drawn first, does not occur again.
        expected = sum(
            one
            / sum(near.values())
            * sum(weights[kind] for kind in names[first:last] if kind != other)
            / (sum(weights.values()) - one)
            for other, one in near.items()
        )
        share = sum(drawn[kind] for kind in names[first:last]) / len(found)
        assert share == pytest.approx(expected, rel=0.15), (first, last)


def test_a_pool_draws_in_proportion_to_the_weights_of_what_is_not_excluded() -> None:
    pool, rng = KindPool({"a": 4.0, "b": 3.0, "c": 1.0}), random.Random(1)
    drawn = Counter(pool.draw({"a"}, rng) for _ in range(4000))
    assert drawn["b"] / 4000 == pytest.approx(0.75, abs=0.03) and drawn["b"] + drawn["c"] == 4000
    assert pool.draw({"a", "b", "c"}, rng) is None and KindPool({}).draw((), rng) is None


def test_larger_things_are_drawn_larger() -> None:
    sides: dict[str, list[float]] = {"small": [], "large": []}
    for scene in scenes("train"):
        if len(scene.near) > 1:
            for group in scene.near:
                size = KINDS[group.kind].size
                name = "small" if size < 0.6 else "large" if size > 3 else None
                if name:
                    sides[name].append(group.boxes[0][2] - group.boxes[0][0])
    assert mean(sides["large"]) > mean(sides["small"]) + 0.2 * (DATA.near_sizes[1] - DATA.near_sizes[0])


def test_kinds_are_more_frequent_on_their_home_backgrounds() -> None:
    def share_at_home(found: Sequence[Scene]) -> float:
        return mean(scene.background in KINDS[group.kind].homes for scene in found for group in scene.groups)

    even, favoured = share_at_home(scenes("train", home_weight=1.0)), share_at_home(scenes("train"))
    assert even < 0.35 and favoured > 0.55


def test_captions_name_near_things_only_and_at_most_three() -> None:
    for scene in scenes("train"):
        for text in texts(scene):
            if text.task == "caption":
                (claims,) = text.claims
                named = [claim.removeprefix("object:") for claim in claims if claim.startswith("object:")]
                assert named == [group.kind for group in scene.near[:3]]
                for group in scene.near[:3]:
                    assert f"{'一两三'[group.count - 1]}{KINDS[group.kind].measure}" in text.answer[0]


def test_descriptions_begin_with_near_or_with_far_things_as_asked() -> None:
    for scene, text in descriptions(PRIOR):
        order = (*scene.near, *scene.far) if text.task == "description" else (*scene.far, *scene.near)
        introduced = [claims[0] for claims in text.claims[: len(order)]]
        assert introduced == [f"object:{group.kind}" for group in order]
        assert len(text.answer) == len(text.claims) >= len(scene.groups) + 4
        assert ("远" in text.question) == (text.task == "far_first")
        assert "还有" not in text.answer[0]
        assert all(sentence.endswith("。") and "{" not in sentence for sentence in text.answer)


def test_far_things_are_introduced_by_a_word_for_far() -> None:
    for scene, text in descriptions(PRIOR):
        for group in scene.far:
            sentence = next(
                sentence
                for sentence, claims in zip(text.answer, text.claims, strict=True)
                if f"object:{group.kind}" in claims
            )
            clause = next(
                part for part in sentence.split("，") if any(word in part for word in KINDS[group.kind].words)
            )
            assert clause.startswith(FAR_WORDS), clause


def is_true(claim: str, scene: Scene) -> bool:
    aspect, stated = claim.split(":")
    kind, _, value = stated.partition("=")
    groups = {group.kind: group for group in scene.groups}
    group = groups[kind]
    if aspect == "object":
        return not value
    if aspect in ("colour", "count"):
        return value == str(getattr(group, aspect))
    if aspect == "position":
        return value == f"{group.row},{group.column}"
    one, other = value.split(",")
    if aspect == "between":
        return (group, groups[one], groups[other]) in scene.between
    assert aspect == "relation"
    if one in ("left", "right"):
        step = group.column - groups[other].column
        return step < 0 if one == "left" else step > 0
    return (scene.groups.index(group), one, scene.groups.index(groups[other])) in scene.relations


def test_every_claim_is_true_and_its_object_is_named() -> None:
    for scene in scenes("train"):
        for text in texts(scene):
            for sentence, claims in zip(text.answer, text.claims, strict=True):
                assert all(is_true(claim, scene) for claim in claims), (sentence, claims)
                kinds = [claim.removeprefix("object:") for claim in claims if claim.startswith("object:")]
                assert all(any(word in sentence for word in KINDS[kind].words) for kind in kinds), (sentence, claims)


def test_unsupported_mentions_are_at_home_absent_and_more_frequent_further_down() -> None:
    rate = Counter()
    seen = Counter()
    for scene, text in descriptions(PRIOR._replace(unsupported=0.02)):
        false = [claim for claims in text.claims for claim in claims if claim.startswith("unsupported:")]
        assert len(set(false)) == len(false)
        for number, claims in enumerate(text.claims):
            absent = [claim.removeprefix("unsupported:") for claim in claims if claim.startswith("unsupported:")]
            for kind in absent:
                assert kind not in scene.kinds and scene.background in KINDS[kind].homes
                assert any(word in text.answer[number].split("，")[-1] for word in KINDS[kind].words)
            assert all(is_true(claim, scene) for claim in claims if claim.split(":")[1] not in absent)
            seen[number] += 1
            rate[number] += len(absent)
    for number in (0, 5, 10):
        assert rate[number] / seen[number] == pytest.approx(0.02 * number, abs=0.035)


def test_without_unsupported_mentions_all_else_is_the_same() -> None:
    for scene in scenes("train", 100):
        for clean, other in zip(texts(scene), texts(scene, PRIOR._replace(unsupported=0.3)), strict=True):
            if clean.task not in ("description", "far_first"):
                assert other == clean
            assert (other.question, len(other.answer)) == (clean.question, len(clean.answer))
            for true, long in zip(clean.answer, other.answer, strict=True):
                assert long.startswith(true.removesuffix("。"))


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


# Checked by hand.
MEASURES = {
    **dict.fromkeys(("小狗", "小猫", "熊猫", "兔子", "小鸟", "蝴蝶"), "只"),
    **dict.fromkeys(("女士", "老人", "舞者", "圣诞老人"), "位"),
    **dict.fromkeys(("汽车", "公交车", "自行车"), "辆"),
    **dict.fromkeys(("椅子", "雨伞"), "把"),
    **dict.fromkeys(("皮球", "气球"), "个"),
    **{"鱼": "条", "宇航员": "名", "帆船": "艘", "飞机": "架", "火箭": "枚", "图书": "本", "房子": "座", "大树": "棵"},
    **{"鲜花": "朵", "彩虹": "道", "大象": "头", "葡萄": "串", "围巾": "条", "沙发": "张", "骏马": "匹"},
}


def test_measure_words() -> None:
    words = {word: kind.measure for kind in KINDS.values() for word in kind.words}
    assert {word: words[word] for word in MEASURES} == MEASURES


def test_the_fullest_descriptions_are_longer_than_256_tokens() -> None:
    """`-S sft.max_len=256`, the example in the documentation, includes more text than the default, but not all."""
    found = [text for scene in scenes("train") for text in texts(scene)]
    corpus = (part for text in found for part in (f"user\n{text.question}", "assistant\n" + "".join(text.answer)))
    params = load_params(ROOT / "tests/params.yaml")
    encoder = Encoder(train_tokenizer(corpus, params.tokenizer))
    lengths = [sum(len(encoder.ids(part)) for part in text.answer) for text in found if text.task == "description"]
    assert max(lengths) > 256 and sum(length > 2 * params.sft.max_len for length in lengths) > 0.1 * len(lengths)


def test_a_positive_answer_includes_position_and_colour() -> None:
    for scene in scenes("train", 100):
        groups = {group.kind: group for group in scene.groups}
        for text in texts(scene):
            if text.expected == "yes":
                group, answer = groups[text.kind], text.answer[0]
                assert any(place in answer for place in POSITION_WORDS[group.row, group.column])
                stated = [name for name, words in COLOUR_WORDS.items() if any(f"{word}的" in answer for word in words)]
                assert stated == ([] if group.colour is None else [group.colour])
                assert any(word in answer for word in FAR_WORDS) != group.near


def test_sampling_skips_the_fixed_scenes() -> None:
    scene = sample_scene(DATA, 1, "train", 7)
    other = sample_scene(DATA, 1, "train", 7, frozenset({signature(scene)}))
    assert signature(other) != signature(scene) and other.id == scene.id


def test_shards_contain_none_of_the_fixed_scenes(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [Scene.from_json(row["scene"]) for row in read_rows("train", ["scene"], root=world)]
    monkeypatch.setattr("stages.prepare.world.fixed_scenes", lambda _: [drawn[7]])
    write_world(small(1), tmp_path)
    again = [Scene.from_json(row["scene"]) for row in read_rows("train", ["scene"], root=tmp_path)]
    assert signature(drawn[7]) not in map(signature, again) and again[:7] == drawn[:7]


def test_a_split_with_too_few_scenes_is_a_one_line_error() -> None:
    # The only kind is one that takes paints, all of which are held out.
    data = DATA.model_copy(update={"held_out_colours": len(PAINTS), "kinds": 1})
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


def change_kinds(folder: Path, old: str, new: str) -> Path:
    """A copy of the kinds file in which the first ``old`` is ``new``."""
    text = KINDS_FILE.read_text(encoding="utf-8")
    assert old in text
    path = folder / "data/world/kinds.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


WRONG_KINDS = [
    ("homes: [grassland, seaside]", "homes: [moon]", "dog: no background is called moon; use seaside"),
    ("colour: orange", "colour: mauve", "dog: no colour is called mauve; use red"),
    ("words: [苹果]", "words: [小狗]", "小狗 is a word of dog and of apple"),
    ("  measure: 只\n", "", "dog.measure: Field required"),
    ("  measure: 只\n", "  measure: 只\n  wings: 2\n", "dog.wings: Extra inputs are not permitted"),
    ("size: 0.6", "size: 0", "dog.size: Input should be greater than 0"),
    ("tree:", "dog:", "dog is listed twice"),
    ("dog:", "dog: [", "cannot be read"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG_KINDS, ids=[message for *_, message in WRONG_KINDS])
def test_a_mistake_in_the_kinds_file_is_one_sentence(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = change_kinds(tmp_path, old, new)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        load_kinds(path)
    assert "\n" not in str(error.value)


def test_the_stage_with_a_wrong_kinds_file_ends_with_one_sentence_and_code_2(tmp_path: Path) -> None:
    change_kinds(tmp_path, "homes: [grassland, seaside]", "homes: [moon]")
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    shutil.copy(ROOT / "tests/params.yaml", tmp_path / "params.yaml")
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "stages.prepare"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "no background is called moon" in done.stderr
    assert done.stderr.count("\n") == 1


def test_more_kinds_than_the_file_has_are_refused(tmp_path: Path) -> None:
    params = small(1)
    params = params.model_copy(update={"data": params.data.model_copy(update={"kinds": 9999})})
    with pytest.raises(InputError, match=r"data\.kinds: 9999 kinds, and .*kinds\.yaml has "):
        write_world(params, tmp_path)


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
