"""Mentions: hand-checked sentences, and every text the world can word."""

from __future__ import annotations

import random

import pytest

from stages.common.params import load_params
from stages.evaluate.mentions import find_mentions
from stages.evaluate.metrics import parse_yes_no, score_text
from stages.prepare.scene import sample_scene
from stages.prepare.wording import texts_of

# text -> what is claimed to be there: (kind, colour or None); a leading "-" marks a negated mention.
SENTENCES = [
    ("海边有一只红色的小狗。", [("dog", "red")]),
    ("海边有一只红色小狗。", [("dog", "red")]),
    ("小狗是红色的。", [("dog", "red")]),
    ("小狗的颜色是红色。", [("dog", "red")]),
    ("一位穿红色衣服的女士。", [("woman", "red")]),
    ("一位穿着红色的衣服的女士。", [("woman", "red")]),
    ("女士穿着蓝色的衣服。", [("woman", "blue")]),
    ("女士穿蓝色的衣服。", [("woman", "blue")]),
    ("女士的衣服是橘色的。", [("woman", "orange")]),
    ("红色的狗和蓝色的猫。", [("dog", "red"), ("cat", "blue")]),
    ("一只狗、两只绿色的猫和一本书。", [("dog", None), ("cat", "green"), ("book", None)]),
    ("右边有一个黄色的气球。", [("balloon", "yellow")]),
    ("一个白色的皮球。", [("ball", "white")]),
    ("一个白色的球。", [("ball", "white")]),
    ("公交车旁边是自行车。", [("bus", None), ("bicycle", None)]),
    ("屋子里很温馨。", []),
    ("屋子里有一座小屋。", [("house", None)]),
    ("大树树冠很茂密，树干是棕褐色的。", [("tree", None)]),
    ("老人头发花白，手里拄着拐杖。", [("elderly", None)]),
    ("鲜花有五片花瓣。", [("flower", None)]),
    ("书本正翻开着，书页是浅色的。", [("book", None)]),
    ("雨伞伞面撑开了，伞柄弯弯的。", [("umbrella", None)]),
    ("图中没有狗。", [("-dog", None)]),
    ("图中没有狗和猫。", [("-dog", None), ("-cat", None)]),
    ("图中没有狗、猫和鱼。", [("-dog", None), ("-cat", None), ("-fish", None)]),
    ("没有狗，有一只白色的猫。", [("-dog", None), ("cat", "white")]),
    ("看不到小鸟。", [("-bird", None)]),
    ("没看到小鸟。", [("-bird", None)]),
    ("这不是猫，是狗。", [("-cat", None), ("dog", None)]),
    ("背景是蓝色的，有一只狗。", [("dog", None)]),
    ("蓝色的天空下有一只狗。", [("dog", None)]),
    ("远处是蓝蓝的大海，近处是金色的沙子。", []),
    ("两边挂着深红的幕布。", []),
    ("大熊猫是白色的。", [("panda", "white")]),
    ("熊猫和猫的颜色不同。", [("panda", None), ("cat", None)]),
    ("一艘紫色的帆船。", [("boat", "purple")]),
    ("一道橙色的彩虹。", [("rainbow", "orange")]),
    ("一道橙色的虹。", [("rainbow", "orange")]),
    ("两名穿黑色衣服的航天员。", [("astronaut", "black")]),
    ("三架绿色的客机！", [("plane", "green")]),
    ("小狗是红色的气球", [("dog", None), ("balloon", "red")]),
    ("红色红色红色", []),
    ("", []),
    ("！？。，\n\n", []),
    ("老爷爷在座椅的上边。", [("elderly", None), ("chair", None)]),
    ("舞蹈演员旁边有舞者。", [("dancer", None), ("dancer", None)]),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_sentence(text: str, expected: list[tuple[str, str | None]]) -> None:
    found = [("-" * mention.negated + mention.kind, mention.colour) for mention in find_mentions(text)]
    assert found == expected


def test_offsets_point_at_the_words() -> None:
    text = "海边有狗。\n右边有一个黄色的大气球，没有鱼。"
    for mention in find_mentions(text):
        assert text[mention.start : mention.end] == mention.word
    assert [mention.word for mention in find_mentions(text)] == ["狗", "大气球", "鱼"]


def test_every_text_of_the_world_is_read_as_it_was_meant() -> None:
    data = load_params().data
    for index in range(300):
        scene = sample_scene(data, 1, "test", index)
        colours = {group.kind: group.colour for group in scene.groups}
        for text in texts_of(scene, random.Random(index)):
            answer = "".join(text.answer)
            score = score_text(answer, scene)
            assert score.named <= scene.kinds, answer
            assert all(mention.colour in (None, colours[mention.kind]) for mention in score.mentions), answer
            if text.task == "description":
                assert score.named == set(score.colours) == scene.kinds, answer
            if text.task == "caption":
                assert score.named and set(score.colours) == score.named, answer
            if text.expected in ("yes", "no"):
                assert parse_yes_no(answer) == text.expected, answer
                assert bool(score.named) == (text.expected == "yes"), answer
