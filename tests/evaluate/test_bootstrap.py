"""Intervals by resampling, and paired differences of two checkpoints."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stages.evaluate.score.bootstrap import Bootstrap, Estimate, ratio
from stages.evaluate.score.world import text_estimates


def share(rows: list[dict[str, float]], samples: int, confidence: float = 0.95, seed: int = 1) -> Estimate:
    return Bootstrap(len(rows), samples, confidence, seed).of_sums(rows, {"share": ratio("part", "whole")})["share"]


def test_nothing_to_measure_is_undefined_everywhere() -> None:
    found = text_estimates([], [], frozenset(), {"dog": 1}, Bootstrap(0, 10, 0.95, 1))
    assert found and {estimate.row()["value"] for estimate in found.values()} == {None}


def test_every_scene_has_a_row() -> None:
    with pytest.raises(ValueError, match="1 rows for 2 scenes"):
        Bootstrap(2, 10, 0.95, 1).of_sums([{"part": 1.0}], {})


def test_two_checkpoints_get_the_same_resamples() -> None:
    """Scenes differ strongly, checkpoints by the same amount in each: the difference is certain, each value is not."""
    easy = [{"part": 0.5 + (i % 10) / 20, "whole": 1.0} for i in range(100)]
    hard = [{"part": row["part"] - 0.02, "whole": 1.0} for row in easy]
    one, other = share(easy, 500), share(hard, 500)
    assert one.low < other.high  # the intervals overlap
    assert np.allclose(one.resampled - other.resampled, 0.02)


def test_a_value_that_is_no_mean_has_no_interval() -> None:
    assert Estimate.without_interval(0.5).row() == {"value": 0.5, "low": None, "high": None}


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    rows = [{"part": float(i % 2), "whole": 1.0} for i in range(100)]
    wide, narrow = (share(rows, 2000, level) for level in (0.95, 0.5))
    assert wide.low < narrow.low < 0.5 < narrow.high < wide.high


def test_bootstrap_interval() -> None:
    same = [{"part": 1.0, "whole": 2.0}] * 40
    assert share(same, 200)[:3] == (0.5, 0.5, 0.5)
    mixed = [{"part": float(i % 2), "whole": 1.0} for i in range(100)]
    found = share(mixed, 4000)
    # A proportion of one half over 100 scenes: 0.5 -+ 1.96 * sqrt(0.25 / 100).
    assert found.low == pytest.approx(0.402, abs=0.01)
    assert found.high == pytest.approx(0.598, abs=0.01)


def test_bootstrap_repeats_by_seed() -> None:
    rows = [{"part": math.sqrt(i), "whole": 1.0} for i in range(30)]
    first, again, other = (share(rows, 100, seed=seed) for seed in (1, 1, 2))
    assert first[:3] == again[:3] and (first.resampled == again.resampled).all()
    assert first.value == other.value
    assert first.low != other.low


def test_resamples_without_a_value_leave_the_interval_defined() -> None:
    rows = [{"part": 1.0, "whole": 2.0}] + [{"part": 0.0, "whole": 0.0}] * 3  # a resample without the first: undefined
    found = share(rows, 200)
    assert found[:3] == (0.5, 0.5, 0.5) and np.isnan(found.resampled).any()


def test_undefined_values_become_null() -> None:
    found = share([{"part": 0.0, "whole": 0.0}] * 3, 20)
    assert found.row() == {"value": None, "low": None, "high": None}
