"""Random kinds of object in proportion to their frequency, in constant time per draw."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import accumulate

from stages.common.world.vocabulary import KINDS, kind_weights


class KindPool:
    """Kinds with positive weights."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._names = list(weights)
        self._cumulative = list(accumulate(weights.values()))

    def draw(self, excluded: Collection[str], rng: random.Random) -> str | None:
        """A kind outside of ``excluded``, with a probability proportional to its weight; None if there is none."""
        if not self._names:
            return None
        kind = rng.choices(self._names, cum_weights=self._cumulative)[0]
        if kind not in excluded:
            return kind
        # A second draw, from the others, leaves their proportions as they are.
        left = {name: weight for name, weight in self._weights.items() if name not in excluded}
        return rng.choices(list(left), list(left.values()))[0] if left else None


@lru_cache(maxsize=256)
def kinds_on(background: str, number: int, exponent: float, home_weight: float, smallest: float = 0.0) -> KindPool:
    """The first ``number`` kinds whose natural size is at least ``smallest`` metres; those that favour the background
    are more frequent by the factor ``home_weight``."""
    return KindPool(
        {
            name: weight * (home_weight if background in KINDS[name].homes else 1.0)
            for name, weight in kind_weights(number, exponent).items()
            if KINDS[name].size >= smallest
        }
    )


@lru_cache(maxsize=64)
def kinds_at_home(background: str, number: int, exponent: float) -> KindPool:
    """Those of the first ``number`` kinds that favour the background."""
    weights = kind_weights(number, exponent)
    return KindPool({name: weight for name, weight in weights.items() if background in KINDS[name].homes})
