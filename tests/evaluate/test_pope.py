"""Yes/no questions: how answers are parsed and counted."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from stages.evaluate.files import Answer
from stages.evaluate.score.bootstrap import Bootstrap, Estimate, sum_by_scene
from stages.evaluate.score.pope import POPE_METRICS, parse_yes_no, pope_counts, pope_row


def found(asked: list[Answer], samples: int = 20) -> dict[str, Estimate]:
    scenes = list(dict.fromkeys(answer.id for answer in asked))
    rows = sum_by_scene(((answer.id, pope_counts(answer)) for answer in asked), scenes)
    return Bootstrap(len(scenes), samples, 0.95, 1).of_sums(rows, POPE_METRICS)


def value(name: str, asked: list[Answer]) -> float:
    return found(asked)[name].value


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


def test_captions_do_not_answer_questions() -> None:
    captions = ("海边有一只红色的小狗。", "图中有两只小猫。")
    asked = [pope("a", "random", text, expected) for text in captions for expected in ("yes", "no")]
    assert value("pope_invalid", asked) == 1.0
    assert value("pope_accuracy", asked) == 0.0
    assert value("pope_f1", asked) == 0.0
    assert math.isnan(value("pope_yes_ratio", asked))


def pope(scene: str, task: str, answer: str, expected: str) -> Answer:
    return Answer(scene, "test", task, "图中有狗吗？", answer, "", "dog", expected)


POPE = [
    pope("a", "random", "有。", "yes"),  # right
    pope("a", "random", "有。", "no"),  # wrong
    pope("b", "popular", "没有。", "no"),  # right
    pope("b", "adversarial", "呃", "yes"),  # neither
]


def test_pope() -> None:
    assert value("pope_accuracy", POPE) == pytest.approx(2 / 4)
    assert value("pope_yes_ratio", POPE) == pytest.approx(2 / 3)
    assert value("pope_invalid", POPE) == pytest.approx(1 / 4)
    assert value("pope_f1", POPE) == pytest.approx(2 * 1 / (2 + 2))
    assert value("pope_random_accuracy", POPE) == pytest.approx(1 / 2)
    assert value("pope_adversarial_accuracy", POPE) == 0.0
    assert value("pope_random_f1", POPE) == pytest.approx(2 * 1 / (2 + 1))
    assert value("pope_random_yes_ratio", POPE) == 1.0
    assert value("pope_popular_yes_ratio", POPE) == 0.0
    assert math.isnan(value("pope_popular_f1", POPE))  # no yes, answered or expected
    assert math.isnan(value("pope_adversarial_yes_ratio", POPE))  # neither yes nor no


def test_a_scene_s_questions_are_resampled_together() -> None:
    rows = sum_by_scene(((answer.id, pope_counts(answer)) for answer in POPE), ["a", "b", "c"])
    assert [row.get("asked") for row in rows] == [2, 2, None]


def test_rows_hold_the_parsed_answer() -> None:
    assert [pope_row(answer)["parsed"] for answer in POPE] == ["yes", "yes", "no", None]


def test_clustered_questions_widen_the_interval() -> None:
    """Ten questions about one scene with one outcome are one observation, not ten."""
    together = [pope(str(i // 10), "random", "有。" if i // 10 % 2 else "没有。", "yes") for i in range(200)]
    apart = [replace(answer, id=str(i)) for i, answer in enumerate(together)]
    intervals = [found(asked, 1000)["pope_accuracy"] for asked in (together, apart)]
    clustered, independent = (interval.high - interval.low for interval in intervals)
    assert clustered == pytest.approx(independent * math.sqrt(10), rel=0.15)
