"""The ground truth of a scene of the built-in world."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Literal

from stages.common.world.vocabulary import COLOURS, KINDS

Relation = Literal["on", "under", "beside"]


@dataclass(frozen=True)
class Group:
    """``count`` objects of one kind and colour; ``boxes`` are x0, y0, x1, y1 as fractions of the image side."""

    kind: str
    colour: str
    count: int
    row: int
    column: int
    boxes: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Scene:
    """Ground truth of one picture. ``relations`` holds (subject, relation, object), indices into ``groups``."""

    id: str
    background: str
    groups: tuple[Group, ...]
    relations: tuple[tuple[int, Relation, int], ...]

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(group.kind for group in self.groups)

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Scene:
        raw = json.loads(text)
        groups = tuple(
            Group(**{**group, "boxes": tuple(tuple(box) for box in group["boxes"])}) for group in raw["groups"]
        )
        return cls(raw["id"], raw["background"], groups, tuple(tuple(r) for r in raw["relations"]))


@lru_cache(maxsize=8)
def held_out_pairs(seed: int, pairs_per_kind: int) -> frozenset[tuple[str, str]]:
    """Combinations (kind, colour) that only the test split contains: ``pairs_per_kind`` colours of each kind."""
    rng = random.Random(f"{seed}/held-out")
    return frozenset((kind, colour) for kind in KINDS for colour in rng.sample(sorted(COLOURS), pairs_per_kind))
