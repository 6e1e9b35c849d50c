"""The ground truth of a scene of the built-in world."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from stages.common.world.vocabulary import KINDS, PAINTS

Relation = Literal["on", "under", "beside"]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Group:
    """``count`` objects of one kind and colour; ``boxes`` are x0, y0, x1, y1 as fractions of the image side.

    ``colour`` is None for a kind that has no single one. ``row`` and ``column``: the cell of a 3 x 3 grid. ``near``:
    drawn large, and named in captions; the others are far, drawn small, and named in descriptions only.
    """

    kind: str
    colour: str | None
    count: int
    row: int
    column: int
    boxes: tuple[Box, ...]
    near: bool = True


@dataclass(frozen=True)
class Scene:
    """Ground truth of one picture. ``groups``: near ones, then far ones, each in reading order (top row first, left to
    right). ``relations`` holds (subject, relation, object), indices into ``groups``."""

    id: str
    background: str
    groups: tuple[Group, ...]
    relations: tuple[tuple[int, Relation, int], ...]

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(group.kind for group in self.groups)

    @property
    def near(self) -> tuple[Group, ...]:
        return tuple(group for group in self.groups if group.near)

    @property
    def far(self) -> tuple[Group, ...]:
        return tuple(group for group in self.groups if not group.near)

    @property
    def between(self) -> list[tuple[Group, Group, Group]]:
        """Every (far group, near group to its left, near group to its right)."""
        found = []
        for group in self.far:
            left = [near for near in self.near if _extent(near)[1] <= _extent(group)[0]]
            right = [near for near in self.near if _extent(near)[0] >= _extent(group)[1]]
            found += [(group, one, other) for one in left for other in right]
        return found

    def to_json(self) -> str:
        # Not dataclasses.asdict, which takes ten times as long.
        fields = vars(self) | {"groups": [vars(group) for group in self.groups]}
        return json.dumps(fields, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Scene:
        raw = json.loads(text)
        groups = tuple(
            Group(**{**group, "boxes": tuple(tuple(box) for box in group["boxes"])}) for group in raw["groups"]
        )
        return cls(raw["id"], raw["background"], groups, tuple(tuple(r) for r in raw["relations"]))


def _extent(group: Group) -> tuple[float, float]:
    """Where a group begins and ends, from the left of the picture."""
    return min(box[0] for box in group.boxes), max(box[2] for box in group.boxes)


@lru_cache(maxsize=8)
def held_out_pairs(seed: int, pairs_per_kind: int) -> frozenset[tuple[str, str]]:
    """Combinations (kind, colour) that only the test split contains: ``pairs_per_kind`` colours of each kind that can
    have any."""
    rng = random.Random(f"{seed}/held-out")
    painted = [name for name, kind in KINDS.items() if kind.recolour]
    return frozenset((kind, colour) for kind in painted for colour in rng.sample(sorted(PAINTS), pairs_per_kind))
