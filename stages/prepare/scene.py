"""Samples scenes of the built-in world: which objects, where, how many, and in which relation.

A scene is a pure function of (seed, split, index) and of the hand-written scenes, which are never repeated, so the
world is the same for any number of processes. Splits are disjoint by construction: a scene's signature (what is where)
hashes to one split, and a scene that belongs to another split is sampled again. Earlier scenes need not be kept, so
the cost per scene is constant.
"""

from __future__ import annotations

import hashlib
import random
from functools import lru_cache
from typing import Any

from stages.common.config.data import DataParams
from stages.common.core.errors import InputError
from stages.common.world.scene import Group, Relation, Scene, held_out_pairs
from stages.common.world.vocabulary import BACKGROUNDS, COLOURS, KINDS

SPLITS = ("train", "validation", "test")
_SHARE_OF_HASHES = {"train": (0, 80), "validation": (80, 90), "test": (90, 100)}
_MAX_OBJECTS = 6
_LAYER_ROWS = {"sky": (0, 1), "ground": (1, 2)}  # of the 3 x 3 grid
_MAX_DRAWS = 10_000

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
    groups = sorted((g.kind, g.colour, g.count, g.row, g.column) for g in scene.groups)
    return repr((scene.background, groups))


def _belongs(scene: Scene, split: str, held_out: frozenset[tuple[str, str]]) -> bool:
    """Whether the scene's signature hashes to ``split``; only the test split has ``held_out`` pairs (kind, colour)."""
    if split != "test" and any((group.kind, group.colour) in held_out for group in scene.groups):
        return False
    bucket = int.from_bytes(hashlib.sha256(signature(scene).encode()).digest()[:4], "big") % 100
    low, high = _SHARE_OF_HASHES[split]
    return low <= bucket < high


@lru_cache(maxsize=64)
def _kind_weights(background: str, home_weight: float) -> tuple[float, ...]:
    return tuple(kind.frequency * (home_weight if background in kind.homes else 1.0) for kind in KINDS.values())


def _draw(params: DataParams, rng: random.Random, scene_id: str) -> Scene | None:
    """One random scene; None if the chosen objects do not fit on the grid."""
    background = rng.choice(list(BACKGROUNDS))
    group_count = rng.choices(range(1, len(params.group_weights) + 1), params.group_weights)[0]
    names = list(KINDS)
    weights = _kind_weights(background, params.home_weight)
    kinds: list[str] = []
    while len(kinds) < group_count:
        kind = rng.choices(names, weights)[0]
        if kind not in kinds:
            kinds.append(kind)

    free: set[Cell] = {(row, column) for row in range(3) for column in range(3)}
    placed: list[tuple[str, list[Cell]]] = []
    related: tuple[str, Relation, str] | None = None
    if group_count >= 2 and rng.random() < params.relation_probability:
        stack = _stack(kinds[0], kinds[1], rng)
        if stack is not None:
            related, cells = stack
            for kind, cell in cells:
                placed.append((kind, [cell]))
                free.discard(cell)
    for kind in kinds:
        if any(kind == done for done, _ in placed):
            continue
        budget = _MAX_OBJECTS - sum(len(cells) for _, cells in placed) - (len(kinds) - len(placed) - 1)
        count = rng.choices((1, 2, 3), params.count_weights)[0] if budget >= 3 else 1
        cells = _row_of_cells(KINDS[kind].layer, count, free, rng)
        if cells is None:
            return None
        placed.append((kind, cells))
        free.difference_update(cells)

    groups = [_group(kind, cells, rng) for kind, cells in placed]
    if related is not None:
        groups = _lower_onto_support(groups, related)
    groups.sort(key=lambda group: (group.row, group.column))
    return Scene(scene_id, background, tuple(groups), relations_of(groups, related))


def _stack(
    first: str, second: str, rng: random.Random
) -> tuple[tuple[str, Relation, str], list[tuple[str, Cell]]] | None:
    """The relation and the cells of two kinds one above the other; None if neither can support or shelter the other."""
    upper_row, column = 1, rng.randrange(3)
    for low, high in ((first, second), (second, first)):
        if KINDS[low].support:
            return (high, "on", low), [(high, (upper_row, column)), (low, (upper_row + 1, column))]
        if KINDS[high].shelter and KINDS[low].layer == "ground":
            return (low, "under", high), [(high, (upper_row, column)), (low, (upper_row + 1, column))]
    return None


def _row_of_cells(layer: str, count: int, free: set[Cell], rng: random.Random) -> list[Cell] | None:
    """``count`` free cells side by side in a row of the layer; None if there are none."""
    runs = [
        [(row, column + step) for step in range(count)]
        for row in _LAYER_ROWS[layer]
        for column in range(4 - count)
        if all((row, column + step) in free for step in range(count))
    ]
    return rng.choice(runs) if runs else None


def _group(kind: str, cells: list[Cell], rng: random.Random) -> Group:
    colour = rng.choice(list(COLOURS))
    return Group(kind, colour, **group_boxes(cells, rng.uniform(0.3, 0.36), rng))


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
            group = Group(
                group.kind, group.colour, 1, group.row, group.column, ((x0, round(y0 + lift, 4), x1, round(top, 4)),)
            )
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
