"""Samples scenes of the built-in world: which objects, where, how many, and in which relation.

A scene is a pure function of (seed, split, index) and of the hand-written scenes, which are never repeated, so the
world is the same for any number of processes. Splits are disjoint by construction: a scene's signature (what is where)
hashes to one split, and a scene that belongs to another split is sampled again. Earlier scenes need not be kept, so
the cost per scene is constant.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from stages.common.config.data import DataParams
from stages.common.core.errors import InputError
from stages.common.world.scene import Box, Group, Relation, Scene, held_out_pairs
from stages.common.world.vocabulary import BACKGROUNDS, KINDS, NEAR_SIZE, PAINTS
from stages.prepare.kind_pool import KindPool, kinds_on

SPLITS = ("train", "validation", "test")
_SHARE_OF_HASHES = {"train": (0, 80), "validation": (80, 90), "test": (90, 100)}
_BACKGROUNDS = tuple(BACKGROUNDS)
_NEAR_ROWS = {"sky": (0, 1), "ground": (1, 2), "water": (1, 2), "table": (1, 2)}  # of the 3 x 3 grid
# Of the picture's height: where the lower edges of far objects are.
_FAR_HEIGHTS = {"sky": (0.12, 0.45), "ground": (0.5, 0.98), "water": (0.5, 0.98), "table": (0.5, 0.98)}
_GAP = 0.01  # smallest distance of a far object to others, as a fraction of the picture's side
_MAX_DRAWS = 10_000
_MAX_PLACES = 40  # places tried for a far group

Cell = tuple[int, int]  # row, column


def sample_scene(params: DataParams, seed: int, split: str, index: int, taken: frozenset[str] = frozenset()) -> Scene:
    """The scene ``index`` of ``split``, whose signature is none of ``taken``.

    Raises InputError if the parameters allow too few scenes in the split.
    """
    rng = random.Random(f"{seed}/{split}/{index}")
    held_out = held_out_pairs(seed, params.held_out_colours)
    for _ in range(_MAX_DRAWS):
        scene = _draw(params, rng, f"{split}-{index:07d}")
        if scene is not None and _belongs(scene, split, held_out) and signature(scene) not in taken:
            return scene
    raise InputError(
        f"params.yaml: data.held_out_colours: {params.held_out_colours} allows too few scenes in the {split} split, "
        f"none in {_MAX_DRAWS} draws; lower it"
    )


def signature(scene: Scene) -> str:
    """What is where, without the random offsets: scenes with the same signature show the same objects."""
    groups = sorted((g.kind, g.colour or "", g.count, g.row, g.column, g.near) for g in scene.groups)
    return repr((scene.background, groups))


def _belongs(scene: Scene, split: str, held_out: frozenset[tuple[str, str]]) -> bool:
    """Whether the scene's signature hashes to ``split``; only the test split has ``held_out`` pairs (kind, colour)."""
    if split != "test" and any((group.kind, group.colour) in held_out for group in scene.groups):
        return False
    bucket = int.from_bytes(hashlib.sha256(signature(scene).encode()).digest()[:4], "big") % 100
    low, high = _SHARE_OF_HASHES[split]
    return low <= bucket < high


def _draw_kinds(pool: KindPool, number: int, taken: Collection[str], rng: random.Random) -> list[str]:
    """``number`` distinct kinds outside of ``taken``, or all that there are."""
    kinds: list[str] = []
    while len(kinds) < number and (kind := pool.draw([*taken, *kinds], rng)) is not None:
        kinds.append(kind)
    return kinds


def _draw(params: DataParams, rng: random.Random, scene_id: str) -> Scene | None:
    """One random scene; None if the chosen objects do not fit."""
    background = rng.choice(_BACKGROUNDS)
    frequencies = background, params.kinds, params.zipf_exponent, params.home_weight
    number = rng.choices(range(1, len(params.near_weights) + 1), params.near_weights)[0]
    near_kinds = _draw_kinds(kinds_on(*frequencies, NEAR_SIZE), number, (), rng)
    found = _draw_near(params, near_kinds, rng)
    if found is None:
        return None
    near, related = found
    number = rng.choices(range(len(params.far_weights)), params.far_weights)[0]
    far_kinds = _draw_kinds(kinds_on(*frequencies), number, near_kinds, rng)
    far = _draw_far(params, far_kinds, [box for group in near for box in group.boxes], rng)
    if far is None:
        return None
    near.sort(key=_reading_order)
    far.sort(key=_reading_order)
    return Scene(scene_id, background, (*near, *far), relations_of(near, related))


def _reading_order(group: Group) -> tuple[int, int]:
    return group.row, group.column


def _draw_near(
    params: DataParams, kinds: list[str], rng: random.Random
) -> tuple[list[Group], tuple[str, Relation, str] | None] | None:
    """Groups in cells of the grid, and the pair of which one is on or under the other."""
    free: set[Cell] = {(row, column) for row in range(3) for column in range(3)}
    placed: dict[str, list[Cell]] = {}
    related: tuple[str, Relation, str] | None = None
    if len(kinds) >= 2 and rng.random() < params.relation_probability:
        stack = _stack(kinds[0], kinds[1], rng)
        if stack is not None:
            related, cells = stack
            placed = {kind: [cell] for kind, cell in cells}
            free.difference_update(cell for _, cell in cells)
    for kind in kinds:
        if kind in placed:
            continue
        budget = params.max_near - sum(map(len, placed.values())) - (len(kinds) - len(placed) - 1)
        count = rng.choices((1, 2, 3), params.count_weights)[0] if budget >= 3 else 1
        cells = _row_of_cells(KINDS[kind].place, count, free, rng)
        if cells is None:
            return None
        placed[kind] = cells
        free.difference_update(cells)
    sides = _sides(kinds, params.near_sizes, rng)
    groups = [
        Group(kind, _colour(kind, rng), **group_boxes(cells, sides[kind], rng), near=True)
        for kind, cells in placed.items()
    ]
    if related is not None:
        groups = _lower_onto_support(groups, related)
    return groups, related


def _draw_far(params: DataParams, kinds: list[str], taken: list[Box], rng: random.Random) -> list[Group] | None:
    """Small objects side by side, at places that no other object covers (``taken``)."""
    taken = list(taken)
    sides = _sides(kinds, params.far_sizes, rng)
    groups: list[Group] = []
    budget = params.max_far
    for number, kind in enumerate(kinds):
        available = budget - (len(kinds) - number - 1)
        count = min(rng.choices((1, 2, 3), params.count_weights)[0], available)
        boxes = _free_row(KINDS[kind].place, count, sides[kind], taken, rng)
        if boxes is None:
            return None
        taken += boxes
        budget -= count
        x, y = (boxes[0][0] + boxes[-1][2]) / 2, (boxes[0][1] + boxes[0][3]) / 2
        groups.append(Group(kind, _colour(kind, rng), count, int(y * 3), int(x * 3), tuple(boxes), near=False))
    return groups


def _free_row(place: str, count: int, side: float, taken: list[Box], rng: random.Random) -> list[Box] | None:
    """Boxes of ``count`` objects side by side; None if no free place was found."""
    low, high = _FAR_HEIGHTS[place]
    step = side + _GAP
    for _ in range(_MAX_PLACES):
        x, bottom = rng.uniform(0, 1 - count * step), rng.uniform(max(low, side), high)
        row = x, bottom - side, x + count * step - _GAP, bottom
        if not any(_overlap(row, other) for other in taken):
            lefts = [x + k * step for k in range(count)]
            return [(round(left, 4), round(row[1], 4), round(left + side, 4), round(bottom, 4)) for left in lefts]
    return None


def _overlap(one: Box, other: Box) -> bool:
    return (
        one[0] < other[2] + _GAP and other[0] < one[2] + _GAP and one[1] < other[3] + _GAP and other[1] < one[3] + _GAP
    )


def _colour(kind: str, rng: random.Random) -> str | None:
    return rng.choice(PAINTS) if KINDS[kind].recolour else KINDS[kind].colour


def _sides(kinds: Sequence[str], bounds: Sequence[float], rng: random.Random) -> dict[str, float]:
    """The side of each kind's box, within ``bounds``: larger for what is larger than the other things in reality."""
    low, high = bounds
    logs = {kind: math.log(KINDS[kind].size) for kind in kinds}
    mean = sum(logs.values()) / max(len(logs), 1)
    sides = {}
    for kind, log in logs.items():
        position = min(max(0.5 + 0.12 * (log - mean) + rng.uniform(-0.3, 0.3), 0.0), 1.0)
        sides[kind] = low + (high - low) * position
    return sides


def _stack(
    first: str, second: str, rng: random.Random
) -> tuple[tuple[str, Relation, str], list[tuple[str, Cell]]] | None:
    """The relation and the cells of two kinds one above the other; None if neither can support or shelter the other."""
    upper_row, column = 1, rng.randrange(3)
    for low, high in ((first, second), (second, first)):
        if KINDS[low].support and KINDS[low].place != "sky":
            return (high, "on", low), [(high, (upper_row, column)), (low, (upper_row + 1, column))]
        if KINDS[high].shelter and KINDS[low].place != "sky":
            return (low, "under", high), [(high, (upper_row, column)), (low, (upper_row + 1, column))]
    return None


def _row_of_cells(place: str, count: int, free: set[Cell], rng: random.Random) -> list[Cell] | None:
    """``count`` free cells side by side in a row that fits ``place``; None if there are none."""
    runs = [
        [(row, column + step) for step in range(count)]
        for row in _NEAR_ROWS[place]
        for column in range(4 - count)
        if all((row, column + step) in free for step in range(count))
    ]
    return rng.choice(runs) if runs else None


def group_boxes(cells: list[Cell], side: float, rng: random.Random | None = None) -> dict[str, Any]:
    """Count, grid position and boxes of objects in ``cells``; with ``rng``, at random offsets inside the picture.

    ``side`` and the boxes (x0, y0, x1, y1) are fractions of the picture's side.
    """
    boxes = []
    for row, column in cells:
        x = (column + 0.5) / 3 - side / 2 + (rng.uniform(-0.02, 0.02) if rng else 0.0)
        y = (row + 0.5) / 3 - side / 2 + (rng.uniform(-0.02, 0.02) if rng else 0.0)
        x, y = min(max(x, 0.0), 1.0 - side), min(max(y, 0.0), 1.0 - side)
        boxes.append((round(x, 4), round(y, 4), round(x + side, 4), round(y + side, 4)))
    mean_column = sum(column for _, column in cells) / len(cells)
    column = 0 if mean_column < 1 else 2 if mean_column > 1 else 1
    return {"count": len(cells), "row": cells[0][0], "column": column, "boxes": tuple(boxes)}


def _lower_onto_support(groups: list[Group], related: tuple[str, Relation, str]) -> list[Group]:
    """Move the upper object of an "on" pair vertically so that it stands on the lower one."""
    subject, relation, anchor = related
    if relation != "on":
        return groups
    lower = next(group for group in groups if group.kind == anchor)
    top = lower.boxes[0][1] + 0.02
    moved = []
    for group in groups:
        if group.kind == subject:
            x0, y0, x1, y1 = group.boxes[0]
            lift = top - y1
            group = replace(group, boxes=((x0, round(y0 + lift, 4), x1, round(top, 4)),))
        moved.append(group)
    return moved


def relations_of(
    groups: list[Group], related: tuple[str, Relation, str] | None
) -> tuple[tuple[int, Relation, int], ...]:
    """The pair ``related``, then "beside" for every two single objects that are neighbours in a row."""
    found: list[tuple[int, Relation, int]] = []
    index = {group.kind: i for i, group in enumerate(groups)}
    if related is not None:
        found.append((index[related[0]], related[1], index[related[2]]))
    for i, left in enumerate(groups):
        for j, right in enumerate(groups):
            neighbours = left.row == right.row and right.column - left.column == 1
            if neighbours and left.count == 1 and right.count == 1:
                found.append((i, "beside", j))
    return tuple(found)
