"""Metrics against examples worked out by hand."""

from __future__ import annotations

import math

import pytest

from stages.common.world import Group, Scene
from stages.evaluate.metrics import (
    PopeAnswer,
    bootstrap,
    interval_row,
    parse_yes_no,
    ratio,
    repetition,
    samples_text,
    score_text,
    sum_by_scene,
    summarise,
    text_row,
)

NOTHING_HELD_OUT = frozenset()


def scene(name: str, *objects: tuple[str, str]) -> Scene:
    groups = tuple(Group(kind, colour, 1, 1, i, ((0.0, 0.0, 0.3, 0.3),)) for i, (kind, colour) in enumerate(objects))
    return Scene(name, "seaside", groups, ())


def value(name: str, descriptions=(), captions=(), pope=(), held_out=NOTHING_HELD_OUT) -> float:
    blank = [score_text("", scene("blank", ("fish", "red")))]
    asked = [PopeAnswer("blank", "random", "", "有。", "fish", "yes", 1.0)]
    found = summarise(descriptions or blank, captions or blank, pope or asked, held_out, 50, 0.95, 1)
    return found[name].value


DOG_CAT = scene("a", ("dog", "red"), ("cat", "blue"))
# Four mentions, one (气球) of something that is not there; three kinds named, two of them right, none missed.
TALKATIVE = score_text("有一只红色的狗，狗的旁边是绿色的猫和一个白色的气球。", DOG_CAT)
# One mention, right; the cat is missed.
SHORT = score_text("有一只红色的狗。", DOG_CAT)


def test_chair_counts_mentions_and_texts() -> None:
    assert value("chair_i", [TALKATIVE, SHORT]) == pytest.approx(1 / 5)
    assert value("chair_s", [TALKATIVE, SHORT]) == pytest.approx(1 / 2)


def test_precision_recall_and_f1_count_kinds_over_all_texts() -> None:
    assert value("precision", [TALKATIVE, SHORT]) == pytest.approx(3 / 4)
    assert value("recall", [TALKATIVE, SHORT]) == pytest.approx(3 / 4)
    assert value("f1", [TALKATIVE]) == pytest.approx(2 * 2 / (3 + 2))


def test_colours_are_judged_only_for_objects_that_are_there() -> None:
    assert value("colour_accuracy", [TALKATIVE]) == pytest.approx(1 / 2)  # dog right, cat wrong, balloon not asked
    held_out = frozenset({("cat", "blue")})
    assert value("colour_accuracy_held_out", [TALKATIVE], held_out=held_out) == 0.0
    assert math.isnan(value("colour_accuracy_held_out", [SHORT], held_out=held_out))


def test_the_first_stated_colour_counts() -> None:
    assert value("colour_accuracy", [score_text("狗是红色的。狗是绿色的。", DOG_CAT)]) == 1.0
    assert value("colour_accuracy", [score_text("狗是绿色的。狗是红色的。", DOG_CAT)]) == 0.0


def test_negated_objects_are_no_claims() -> None:
    assert math.isnan(value("chair_i", [score_text("图中没有鱼。", DOG_CAT)]))


def test_the_short_prompt_has_its_own_figures() -> None:
    assert value("caption_recall", [TALKATIVE], [SHORT]) == 0.5
    assert value("recall", [TALKATIVE], [SHORT]) == 1.0


def test_length_and_repetition() -> None:
    assert value("length", [score_text("一二三四五", DOG_CAT), score_text("一", DOG_CAT)]) == 3.0
    assert repetition("abcdabcd") == pytest.approx(1 / 5)  # abcd bcda cdab dabc abcd
    assert repetition("abc") == 0.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("有，图中有狗。", "yes"),
        ("有。", "yes"),
        ("是的，有狗", "yes"),
        ("能看到", "yes"),
        ("没有，图中没有狗。", "no"),
        ("没，", "no"),
        ("不，没有", "no"),
        ("否", "no"),
        ("看不到狗", "no"),
        ("不是", "no"),
        ("", None),
        ("小狗", None),
        ("。", None),
    ],
)
def test_yes_and_no(answer: str, expected: str | None) -> None:
    assert parse_yes_no(answer) == expected


def pope(scene_name: str, task: str, answer: str, expected: str, margin: float) -> PopeAnswer:
    return PopeAnswer(scene_name, task, "图中有狗吗？", answer, "dog", expected, margin)


POPE = [
    pope("a", "random", "有。", "yes", 2.0),  # right
    pope("a", "random", "有。", "no", -1.0),  # wrong, but right by likelihood
    pope("b", "popular", "没有。", "no", -1.0),  # right
    pope("b", "adversarial", "呃", "yes", -1.0),  # neither
]


def test_pope() -> None:
    assert value("pope_accuracy", pope=POPE) == pytest.approx(2 / 4)
    assert value("pope_likelihood_accuracy", pope=POPE) == pytest.approx(3 / 4)
    assert value("pope_yes_ratio", pope=POPE) == pytest.approx(2 / 3)
    assert value("pope_invalid", pope=POPE) == pytest.approx(1 / 4)
    assert value("pope_f1", pope=POPE) == pytest.approx(2 * 1 / (2 + 2))
    assert value("pope_random_accuracy", pope=POPE) == pytest.approx(1 / 2)
    assert value("pope_adversarial_accuracy", pope=POPE) == 0.0


def test_a_scene_s_questions_are_resampled_together() -> None:
    rows = sum_by_scene((answer.scene, answer.counts()) for answer in POPE)
    assert [row["asked"] for row in rows] == [2, 2]


def test_bootstrap_interval() -> None:
    same = [{"part": 1.0, "whole": 2.0}] * 40
    assert bootstrap(same, {"share": ratio("part", "whole")}, 200, 0.95, 1)["share"] == (0.5, 0.5, 0.5)
    mixed = [{"part": float(i % 2), "whole": 1.0} for i in range(100)]
    found = bootstrap(mixed, {"share": ratio("part", "whole")}, 4000, 0.95, 1)["share"]
    # A proportion of one half over 100 scenes: 0.5 -+ 1.96 * sqrt(0.25 / 100).
    assert found.low == pytest.approx(0.402, abs=0.02)
    assert found.high == pytest.approx(0.598, abs=0.02)
    assert bootstrap(mixed, {"share": ratio("part", "whole")}, 4000, 0.95, 1)["share"] == found


def test_undefined_values_become_null() -> None:
    found = bootstrap([{"part": 0.0, "whole": 0.0}] * 3, {"share": ratio("part", "whole")}, 20, 0.95, 1)
    assert interval_row(found["share"]) == {"value": None, "low": None, "high": None}


def test_rows_mark_what_is_wrong_and_missed() -> None:
    row = text_row(score_text("绿色的狗和一条鱼。", DOG_CAT), "test", "caption", "?", "reference")
    assert [(m["kind"], m["supported"], m["colour_right"]) for m in row["mentions"]] == [
        ("dog", True, False),
        ("fish", False, None),
    ]
    assert row["missed"] == ["cat"]


def test_samples_in_the_notes_form() -> None:
    text = samples_text(26_223_616, [("熊猫草地", "一只熊猫。"), ("舞蹈", "舞者。")])
    assert text == "模型参数量：26.224 百万\n\n[Image]: 熊猫草地\n一只熊猫。\n\n[Image]: 舞蹈\n舞者。\n"
