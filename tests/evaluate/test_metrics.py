"""Metrics against examples worked out by hand."""

from __future__ import annotations

import math
from dataclasses import astuple

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
    assert repetition("aaaaab") == pytest.approx(1 / 3)  # aaaa aaaa aaab
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
        ("有", "yes"),
        (" “有”", "yes"),
        ("是的", "yes"),
        ("看得到。", "yes"),
        ("图中有一只小狗。", "yes"),
        ("不", "no"),
        ("不存在。", "no"),
        ("无。", "no"),
        ("海边什么都有。", None),
        ("图中没有狗。", "no"),
        ("画面里并没有小狗。", "no"),
        ("海边有一只红色的小狗。", None),  # a caption
        ("图中海边有一只红色的小狗。", None),
        ("左侧是一只小狗。", None),
        ("右上方可以看到一只小鸟。", None),
        ("小狗是红色的。", None),
        ("小狗和小猫的颜色不同。", None),
        ("不知道。", None),
        ("不清楚", None),
        ("无法判断", None),
        ("没关系", None),
        ("有没有狗", None),
        ("\n", None),
    ],
)
def test_yes_and_no(answer: str, expected: str | None) -> None:
    assert parse_yes_no(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("图中有两只小狗。", "yes"),
        ("图中有两只小猫。", None),
        ("图中没有小猫。", None),
        ("能看到小猫。图中有狗。", None),
        ("有图中没有狗。", None),  # contradicts itself
        ("不能看到狗。", "no"),
        ("能看到狗。", "yes"),
        ("有，图中有小猫。", "yes"),  # the word answers; what follows is not judged
        ("没有，图中没有小猫。", "no"),
    ],
)
def test_a_statement_answers_only_for_the_object_it_names(answer: str, expected: str | None) -> None:
    assert parse_yes_no(answer, "dog") == expected


def test_a_model_that_only_captions_answers_no_question() -> None:
    captions = ("海边有一只红色的小狗。", "图中有两只小猫。")
    asked = [pope("a", "random", text, expected, 0.0) for text in captions for expected in ("yes", "no")]
    assert value("pope_invalid", pope=asked) == 1.0
    assert value("pope_accuracy", pope=asked) == 0.0
    assert value("pope_f1", pope=asked) == 0.0
    assert math.isnan(value("pope_yes_ratio", pope=asked))


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


def test_likelihood_is_yes_above_zero_only() -> None:
    assert value("pope_likelihood_accuracy", pope=[pope("a", "random", "", "yes", 0.0)]) == 0.0
    assert value("pope_likelihood_accuracy", pope=[pope("a", "random", "", "no", 0.0)]) == 1.0


def test_the_metrics_are_those_of_metrics_json() -> None:
    text = ["chair_i", "chair_s", "precision", "recall", "f1", "colour_accuracy", "length", "repetition"]
    asked = ["accuracy", "f1", "yes_ratio", "invalid", "likelihood_accuracy"]
    asked += [f"{task}_accuracy" for task in ("random", "popular", "adversarial")]
    expected = {*text, "colour_accuracy_held_out", *(f"caption_{name}" for name in text)}
    assert set(summarise([SHORT], [SHORT], POPE, NOTHING_HELD_OUT, 10, 0.95, 1)) == expected | {
        f"pope_{name}" for name in asked
    }


def test_nothing_to_measure_is_undefined_everywhere() -> None:
    found = summarise([], [], [], NOTHING_HELD_OUT, 10, 0.95, 1)
    assert {interval_row(interval)["value"] for interval in found.values()} == {None}


def test_an_empty_answer_misses_all_and_invents_nothing() -> None:
    empty = [score_text("", DOG_CAT)]
    assert value("recall", empty) == value("chair_s", empty) == value("f1", empty) == 0.0
    assert value("length", empty) == value("repetition", empty) == 0.0
    for name in ("chair_i", "precision", "colour_accuracy"):
        assert math.isnan(value(name, empty))


def test_chair_counts_each_mention_where_precision_counts_kinds() -> None:
    text = [score_text("有鱼。鱼是红色的。鱼的左边有狗。", DOG_CAT)]
    assert value("chair_i", text) == pytest.approx(3 / 4)
    assert value("chair_s", text) == 1.0  # a text counts once, however much of it is wrong
    assert value("precision", text) == pytest.approx(1 / 2)


def test_intervals_follow_the_confidence_asked_for() -> None:
    rows = [{"part": float(i % 2), "whole": 1.0} for i in range(100)]
    wide, narrow = (bootstrap(rows, {"s": ratio("part", "whole")}, 2000, level, 1)["s"] for level in (0.95, 0.5))
    assert wide.low < narrow.low < 0.5 < narrow.high < wide.high


def test_clustered_questions_widen_the_interval() -> None:
    """Ten questions that share a scene's fate are one observation, not ten."""
    together = [pope(str(i // 10), "random", "有。" if i // 10 % 2 else "没有。", "yes", 0.0) for i in range(200)]
    apart = [PopeAnswer(str(i), *astuple(answer)[1:]) for i, answer in enumerate(together)]
    found = [summarise([], [], asked, NOTHING_HELD_OUT, 1000, 0.95, 1)["pope_accuracy"] for asked in (together, apart)]
    clustered, independent = (interval.high - interval.low for interval in found)
    assert clustered == pytest.approx(independent * math.sqrt(10), rel=0.15)


def test_bootstrap_interval() -> None:
    same = [{"part": 1.0, "whole": 2.0}] * 40
    assert bootstrap(same, {"share": ratio("part", "whole")}, 200, 0.95, 1)["share"] == (0.5, 0.5, 0.5)
    mixed = [{"part": float(i % 2), "whole": 1.0} for i in range(100)]
    found = bootstrap(mixed, {"share": ratio("part", "whole")}, 4000, 0.95, 1)["share"]
    # A proportion of one half over 100 scenes: 0.5 -+ 1.96 * sqrt(0.25 / 100).
    assert found.low == pytest.approx(0.402, abs=0.01)
    assert found.high == pytest.approx(0.598, abs=0.01)


def test_bootstrap_repeats_by_seed() -> None:
    rows = [{"part": math.sqrt(i), "whole": 1.0} for i in range(30)]
    first, again, other = (bootstrap(rows, {"s": ratio("part", "whole")}, 100, 0.95, seed)["s"] for seed in (1, 1, 2))
    assert first == again
    assert first.value == other.value
    assert first.low != other.low


def test_resamples_without_a_value_leave_the_interval_defined() -> None:
    rows = [{"part": 1.0, "whole": 2.0}] + [{"part": 0.0, "whole": 0.0}] * 3  # a resample without the first: undefined
    assert bootstrap(rows, {"share": ratio("part", "whole")}, 200, 0.95, 1)["share"] == (0.5, 0.5, 0.5)


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
