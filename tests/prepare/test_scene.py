"""Sampled scenes: disjoint splits, sizes, places, frequencies and colours."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from statistics import mean

import pytest

from stages.common.core.errors import InputError
from stages.common.world.scene import Scene, held_out_pairs
from stages.common.world.vocabulary import (
    KINDS,
    NEAR_SIZE,
    PAINTS,
    kind_weights,
)
from stages.prepare.kind_pool import KindPool
from stages.prepare.scene import sample_scene, signature
from tests.prepare.worlds import DATA, scenes


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
        assert sum(group.count for group in scene.far) <= DATA.max_far
        assert sum(group.count for group in scene.near) <= DATA.max_near
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


def test_sampling_skips_the_fixed_scenes() -> None:
    scene = sample_scene(DATA, 1, "train", 7)
    other = sample_scene(DATA, 1, "train", 7, frozenset({signature(scene)}))
    assert signature(other) != signature(scene) and other.id == scene.id


def test_a_split_with_too_few_scenes_is_a_one_line_error() -> None:
    # The only kind is one that takes paints, all of which are held out.
    data = DATA.model_copy(update={"held_out_colours": len(PAINTS), "kinds": 1})
    with pytest.raises(InputError, match=r"data\.held_out_colours: 8 allows too few scenes in the train split"):
        sample_scene(data, 1, "train", 0)
