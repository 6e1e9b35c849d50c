"""Texts compared with the truth of their scenes, by examples worked out by hand."""

from __future__ import annotations

import math

import pytest

from stages.common.world.scene import Group, Scene
from stages.evaluate.score.bootstrap import Bootstrap
from stages.evaluate.score.results import samples_text
from stages.evaluate.score.texts import TEXT_METRICS, TextScore, mention_rows, repetition, score_text

NOTHING_HELD_OUT = frozenset()


def scene(name: str, *objects: tuple[str, str]) -> Scene:
    groups = tuple(Group(kind, colour, 1, 1, i, ((0.0, 0.0, 0.3, 0.3),)) for i, (kind, colour) in enumerate(objects))
    return Scene(name, "seaside", groups, ())


def value(name: str, *texts: TextScore, held_out=NOTHING_HELD_OUT) -> float:
    counts = [score.counts(held_out) for score in texts]
    return Bootstrap(len(texts), 20, 0.95, 1).of_sums(counts, TEXT_METRICS)[name].value


DOG_CAT = scene("a", ("dog", "red"), ("cat", "blue"))
# Four mentions, one (气球) of something that is not there; three kinds named, two of them right, none missed.
TALKATIVE = score_text("有一只红色的狗，狗的旁边是绿色的猫和一个白色的气球。", DOG_CAT)
# One mention, right; the cat is missed.
SHORT = score_text("有一只红色的狗。", DOG_CAT)


def test_chair_counts_mentions_and_texts() -> None:
    assert value("chair_i", TALKATIVE, SHORT) == pytest.approx(1 / 5)
    assert value("chair_s", TALKATIVE, SHORT) == pytest.approx(1 / 2)
    assert value("misnamed", TALKATIVE, SHORT) + value("hallucinated", TALKATIVE, SHORT) == pytest.approx(1 / 5)


def test_chair_of_texts_without_any_mention_is_undefined() -> None:
    empty, denial = score_text("", DOG_CAT), score_text("图中没有鱼。", DOG_CAT)
    for name in ("chair_i", "chair_s", "misnamed", "hallucinated"):
        assert math.isnan(value(name, empty, denial))
    assert value("chair_s", TALKATIVE, SHORT, empty, denial) == pytest.approx(1 / 2)


def test_precision_recall_and_f1_count_kinds_over_all_texts() -> None:
    assert value("precision", TALKATIVE, SHORT) == pytest.approx(3 / 4)
    assert value("recall", TALKATIVE, SHORT) == pytest.approx(3 / 4)
    assert value("f1", TALKATIVE) == pytest.approx(2 * 2 / (3 + 2))


def test_colours_are_judged_only_for_objects_that_are_there() -> None:
    assert value("colour_accuracy", TALKATIVE) == pytest.approx(1 / 2)  # dog right, cat wrong, the balloon not judged
    held_out = frozenset({("cat", "blue")})
    assert value("colour_accuracy_held_out", TALKATIVE, held_out=held_out) == 0.0
    assert math.isnan(value("colour_accuracy_held_out", SHORT, held_out=held_out))


def test_the_first_stated_colour_counts() -> None:
    assert value("colour_accuracy", score_text("狗是红色的。狗是绿色的。", DOG_CAT)) == 1.0
    assert value("colour_accuracy", score_text("狗是绿色的。狗是红色的。", DOG_CAT)) == 0.0


def test_denied_objects_are_not_mentions() -> None:
    assert math.isnan(value("chair_i", score_text("图中没有鱼。", DOG_CAT)))


def test_length_and_repetition() -> None:
    assert value("length", score_text("一二三四五", DOG_CAT), score_text("一", DOG_CAT)) == 3.0
    assert repetition("abcdabcd") == pytest.approx(1 / 5)  # abcd bcda cdab dabc abcd
    assert repetition("aaaaab") == pytest.approx(1 / 3)  # aaaa aaaa aaab
    assert repetition("abc") == 0.0


def test_an_empty_answer_misses_everything() -> None:
    empty = score_text("", DOG_CAT)
    assert value("recall", empty) == value("f1", empty) == 0.0
    assert value("length", empty) == value("repetition", empty) == 0.0
    for name in ("chair_i", "chair_s", "precision", "colour_accuracy"):
        assert math.isnan(value(name, empty))


def test_chair_counts_each_mention_where_precision_counts_kinds() -> None:
    text = score_text("有鱼。鱼是红色的。鱼的左边有狗。", DOG_CAT)
    assert value("chair_i", text) == pytest.approx(3 / 4)
    assert value("chair_s", text) == 1.0  # a text counts once, however much of it is wrong
    assert value("precision", text) == pytest.approx(1 / 2)


def test_rows_mark_what_is_wrong_and_missed() -> None:
    row = mention_rows(score_text("绿色的狗和一条鱼。", DOG_CAT))
    assert [(m["kind"], m["supported"], m["colour_right"]) for m in row["mentions"]] == [
        ("dog", True, False),
        ("fish", False, None),
    ]
    assert row["missed"] == ["cat"]


def test_samples_in_the_notes_form() -> None:
    text = samples_text(26_223_616, [("熊猫草地", "一只熊猫。"), ("舞蹈", "舞者。")])
    assert text == "模型参数量：26.224 百万\n\n[Image]: 熊猫草地\n一只熊猫。\n\n[Image]: 舞蹈\n舞者。\n"
