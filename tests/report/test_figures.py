"""Differences of figures, and lists in a sentence."""

from __future__ import annotations

import pytest

from stages.report.run.figures import relation
from stages.report.run.records import UNDEFINED, Interval
from stages.report.statements import listing


def interval(low: float, high: float) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (interval(-0.2, -0.1), "lower"),
        (interval(0.1, 0.2), "higher"),
        (interval(-0.1, 0.2), "unclear"),
        (interval(0.0, 0.2), "unclear"),
        (Interval(value=0.1, low=None, high=None), "undefined"),
        (UNDEFINED, "undefined"),
    ],
)
def test_a_difference_is_clear_if_its_interval_excludes_zero(change, expected):
    assert relation(change) == expected


def test_lists_have_commas_and_one_and():
    assert [listing(items) for items in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
