"""Hallucination by sentence, frequency and background, by examples worked out by hand."""

from __future__ import annotations

import pytest

from stages.common.world.scene import Group, Scene
from stages.common.world.vocabulary import KINDS
from stages.evaluate.score.bootstrap import Bootstrap
from stages.evaluate.score.breakdowns import (
    PRIOR_METRICS,
    Point,
    by_background,
    by_frequency,
    by_sentence,
    prior_counts,
)
from stages.evaluate.score.texts import score_text

BOX = ((0.0, 0.0, 0.3, 0.3),)
# Dogs, birds, fish, women, cars, boats and umbrellas favour the seaside.
SCENE = Scene("x", "seaside", (Group("dog", "red", 1, 1, 0, BOX), Group("cat", "blue", 1, 1, 2, BOX)), ())


def values(series: list[Point], name: str) -> list[float | None]:
    return [point.row()["intervals"][name]["value"] for point in series]


def bootstrap(scenes: int) -> Bootstrap:
    return Bootstrap(scenes, 20, 0.95, 1)


def test_a_text_is_cut_after_each_sentence() -> None:
    longer = score_text("有狗。有鱼和鱼！还有猫", SCENE)  # ends without a mark
    shorter = score_text("有狗。", SCENE)
    series = by_sentence([longer, shorter], bootstrap(2))
    assert [point.at for point in series] == ["1", "2", "3"]
    assert [point.texts for point in series] == [2, 1, 1]
    assert values(series, "recall") == pytest.approx([2 / 4, 2 / 4, 3 / 4])
    assert values(series, "chair_i") == pytest.approx([0, 2 / 4, 2 / 5])
    assert values(series, "chair_i_new") == pytest.approx([0, 1, 0])


def test_first_mentions_end_with_the_sentence_that_has_hardly_any() -> None:
    scores = [score_text("有狗。有狗。有鱼。", SCENE)] * 19 + [score_text("有狗。有猫。有鱼。", SCENE)]
    series = by_sentence(scores, bootstrap(20))
    assert [point.at for point in series] == ["1", "2", "3"]
    assert ["chair_i_new" in point.estimates for point in series] == [True, False, False]


def test_a_sentence_that_few_texts_have_is_not_shown() -> None:
    scores = [score_text("有狗。", SCENE)] * 19 + [score_text("有狗。有猫。", SCENE)]
    assert [point.at for point in by_sentence(scores, bootstrap(20))] == ["1"]


def test_empty_texts_have_no_sentences() -> None:
    assert by_sentence([score_text("", SCENE)], bootstrap(1)) == []


def test_kinds_in_thirds_by_frequency() -> None:
    frequency = {"dog": 9, "fish": 8, "cat": 5, "ball": 4, "bus": 1, "tree": 1}
    series = by_frequency([score_text("狗、鱼、猫、球、公交车", SCENE)], frequency, bootstrap(1))
    assert {point.at: list(point.kinds) for point in series} == {
        "frequent": ["dog", "fish"],
        "middle": ["cat", "ball"],
        "rare": ["bus", "tree"],
    }
    assert values(series, "chair_i") == [0.5, 0.5, 1.0]
    assert values(series, "recall") == [1.0, 1.0, None]


def test_kinds_by_whether_the_background_suggests_them() -> None:
    series = by_background([score_text("狗、鱼、飞机", SCENE)], bootstrap(1))
    assert {point.at: values([point], "chair_i")[0] for point in series} == {"favoured": 0.5, "other": 1.0}
    assert values(series, "recall") == [1.0, 0.0]  # the cat does not favour this background, and is missed


def test_wrong_mentions_against_those_expected_by_frequency_alone() -> None:
    frequency = dict.fromkeys(KINDS, 0) | {"dog": 50, "fish": 30, "boat": 10, "plane": 60}
    counts = prior_counts(score_text("狗、鱼、鱼、飞机", SCENE), frequency)
    # Of what is absent 30 + 10 of 100 favour the seaside.
    assert counts == {"wrong": 3, "wrong_favoured": 2, "wrong_favoured_expected": pytest.approx(3 * 0.4)}
    found = bootstrap(1).of_sums([counts], PRIOR_METRICS)
    assert found["wrong_on_favoured_background"].value == pytest.approx(2 / 3)
    assert found["wrong_on_favoured_background_expected"].value == pytest.approx(0.4)
