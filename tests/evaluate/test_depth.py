"""Hallucination and recall by depth and distance, by examples worked out by hand."""

from __future__ import annotations

import pytest

from stages.common.world.scene import Group, Scene
from stages.evaluate.score.bootstrap import Bootstrap, Metric
from stages.evaluate.score.breakdowns import by_sentence
from stages.evaluate.score.depth import DEPTH_METRICS, REFERENCE_METRICS, depth_counts, reference_counts
from stages.evaluate.score.texts import TEXT_METRICS, score_text

BOX = ((0.0, 0.0, 0.3, 0.3),)
# A red dog and a cat near, a bird and a house far.
SCENE = Scene(
    "x",
    "seaside",
    (
        Group("dog", "red", 1, 1, 0, BOX),
        Group("panda", None, 1, 1, 2, BOX),
        Group("bird", "blue", 2, 0, 2, BOX, near=False),
        Group("house", "white", 1, 1, 1, BOX, near=False),
    ),
    (),
)
# First mentions: dog, rabbit (wrong; a misnamed panda, by its place); bird, plane (wrong), car (wrong).
TEXT = score_text("左侧有狗。右侧有兔子。远处有鸟和飞机。兔子和汽车很大。远处的飞机很小。", SCENE)
SHORT = score_text("有狗。", SCENE)


def value(name: str, rows: list[dict[str, float]], metrics: dict[str, Metric] = DEPTH_METRICS) -> float:
    return Bootstrap(len(rows), 20, 0.95, 1).of_sums(rows, metrics)[name].value


@pytest.mark.parametrize(
    ("name", "alone", "with_short"),
    [
        ("chair_i_opening", 1 / 2, 1 / 3),
        ("chair_i_rest", 2 / 3, 2 / 3),
        ("chair_i_rise", 1 / 6, 1 / 3),
        ("unsupported_opening", 1, 1 / 2),
        ("recall_opening", 1 / 4, 2 / 8),
        ("length_opening", 11, (11 + 3) / 2),
        ("recall_near", 1 / 2, 2 / 4),
        ("recall_far", 1 / 2, 1 / 4),
        ("chair_i_near", 2 / 3, 2 / 4),
        ("chair_i_far", 1 / 2, 1 / 2),
        ("misnamed_near", 1 / 3, 1 / 4),
        ("hallucinated_near", 1 / 3, 1 / 4),
        ("misnamed_far", 0, 0),
        ("hallucinated_far", 1 / 2, 1 / 2),
    ],
)
def test_first_mentions_by_depth_and_distance(name: str, alone: float, with_short: float) -> None:
    assert value(name, [depth_counts(TEXT)]) == pytest.approx(alone)
    assert value(name, [depth_counts(TEXT), depth_counts(SHORT)]) == pytest.approx(with_short)


def test_unsupported_counts_kinds_a_text() -> None:
    rows = [score.counts(frozenset()) for score in (TEXT, SHORT)]
    assert value("unsupported", rows, TEXT_METRICS) == 3 / 2


def test_new_kinds_by_sentence() -> None:
    series = by_sentence([TEXT], Bootstrap(1, 20, 0.95, 1))

    def along(name: str) -> list[float | None]:
        return [point.estimates[name].value if name in point.estimates else None for point in series]

    assert along("chair_i_new") == [0, 1, 0.5, 1, None]
    assert along("misnamed_new") == [0, 1, 0, 0, None]
    assert along("hallucinated_new") == [0, 0, 0.5, 1, None]
    assert along("recall_near") == [0.5] * 5 and along("recall_far") == [0, 0, 0.5, 0.5, 0.5]


def test_references_by_their_stored_claims() -> None:
    claims = [
        ["object:dog", "count:dog=1"],
        ["object:cat", "object:bird", "unsupported:bird"],
        ["object:dog", "object:car", "unsupported:car"],
        ["object:bird", "object:car", "object:bus"],
    ]
    rows = [reference_counts(claims)]
    opening, rest, rise = (
        value(f"reference_chair_i_{name}", rows, REFERENCE_METRICS) for name in ("opening", "rest", "rise")
    )
    assert (opening, rest, rise) == pytest.approx((1 / 3, 1 / 2, 1 / 6))


def test_a_kind_without_a_colour_has_none_that_is_right_or_wrong() -> None:
    score = score_text("有一只红色的熊猫和一只红色的狗。", SCENE)
    assert [score.colour_right(mention) for mention in score.mentions] == [None, True]
    assert score.colours == {"dog": "red"}
    assert score_text("有一只兔子。", SCENE).misnamed == frozenset()  # it states no colour, as the panda has none
