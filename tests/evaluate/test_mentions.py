"""Mentions: hand-checked sentences, and every text the world can word."""

from __future__ import annotations

import random
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.config.params import load_params
from stages.common.world.vocabulary import (
    BACKGROUNDS,
    COLOUR_WORDS,
    KINDS,
    POSITION_WORDS,
    RELATION_WORDS,
)
from stages.evaluate.score.mentions import find_mentions
from stages.evaluate.score.pope import parse_yes_no
from stages.evaluate.score.texts import repetition, score_text
from stages.prepare.scene import sample_scene
from stages.prepare.wording import Prior, texts_of

PARAMS = Path(__file__).parents[1] / "params.yaml"

# text -> what is claimed to be there: (kind, colour or None); a leading "-" marks a negated mention.
SENTENCES = [
    ("海边有一只红色的小狗。", [("dog", "red")]),
    ("海边有一只红色小狗。", [("dog", "red")]),
    ("小狗是红色的。", [("dog", "red")]),
    ("小狗的颜色是红色。", [("dog", "red")]),
    ("红色的狗和蓝色的猫。", [("dog", "red"), ("cat", "blue")]),
    ("一只狗、两只绿色的猫和一本书。", [("dog", None), ("cat", "green"), ("book", None)]),
    ("右边有一个黄色的气球。", [("balloon", "yellow")]),
    ("一个白色的皮球。", [("ball", "white")]),
    ("一个白色的球。", [("ball", "white")]),
    ("公交车旁边是自行车。", [("bus", None), ("bicycle", None)]),
    ("屋子里很温馨。", []),
    ("屋子里有一座小屋。", [("house", None)]),
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
    ("三架绿色的客机！", [("plane", "green")]),
    ("小狗是红色的气球", [("dog", None), ("balloon", "red")]),
    ("红色红色红色", []),
    ("", []),
    ("！？。，\n\n", []),
    ("小狗是红色的天空。", [("dog", None)]),
    ("小狗是红色的、小猫是蓝色的。", [("dog", "red"), ("cat", "blue")]),
    ("红色的小狗是蓝色的。", [("dog", "red")]),
    ("一辆红色的小汽车。", [("car", "red")]),
    ("一朵花白色的狗。", [("flower", None), ("dog", "white")]),
    ("没有猫但有一只红色的狗。", [("-cat", None), ("dog", "red")]),
    ("没有猫但狗在左边。", [("-cat", None), ("dog", None)]),
    ("没有猫却见一只狗。", [("-cat", None), ("dog", None)]),
    ("没有猫和狗的草地上有兔子。", [("-cat", None), ("-dog", None), ("rabbit", None)]),
    ("没有狗、有猫。", [("-dog", None), ("cat", None)]),
    ("没有看到狗。", [("-dog", None)]),
    ("并没有狗。", [("-dog", None)]),
    ("不是红色的小狗。", [("-dog", "red")]),
    ("有没有狗。", [("-dog", None)]),
    ("没有猫.狗在左边", [("-cat", None), ("dog", None)]),
    ("海水淹没了小船。", [("boat", None)]),
    ("不仅有狗还有猫。", [("dog", None), ("cat", None)]),
    ("海浪卷起浪花，空中飘着雪花。", []),
    ("老爷爷在座椅的上边。", [("elderly", None), ("chair", None)]),
    ("舞蹈演员旁边有舞者。", [("dancer", None), ("dancer", None)]),
    ("鲜花的花瓣是红色的。", [("flower", None)]),
    ("三只粉红色的小狗和棕色的猫。", [("dog", "pink"), ("cat", "brown")]),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_sentence(text: str, expected: list[tuple[str, str | None]]) -> None:
    found = [("-" * mention.negated + mention.kind, mention.colour) for mention in find_mentions(text)]
    assert found == expected


def test_mentions_at_the_end_of_long_texts_are_found() -> None:
    assert [mention.start for mention in find_mentions("海边很美。" * 400 + "狗。")] == [2000]


def test_offsets_are_those_of_the_words() -> None:
    text = "海边有狗。\n右边有一个黄色的大气球，没有鱼。"
    for mention in find_mentions(text):
        assert text[mention.start : mention.end] == mention.word
    assert [mention.word for mention in find_mentions(text)] == ["狗", "大气球", "鱼"]


@pytest.mark.parametrize("words", [*POSITION_WORDS.values(), *RELATION_WORDS.values(), *COLOUR_WORDS.values()])
def test_words_of_place_and_colour_name_no_object(words: tuple[str, ...]) -> None:
    assert find_mentions("、".join(words)) == []


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_backgrounds_name_no_object_and_give_no_colour(name: str) -> None:
    place = BACKGROUNDS[name]
    for phrase in (*place.words, *place.details, *place.moods):
        assert find_mentions(phrase) == []
        assert [(m.kind, m.colour) for m in find_mentions(f"{phrase}有一只狗。")] == [("dog", None)]


# One test for all words: a test for each kind takes longer to set up than to run.
WORDS = [(name, word) for name, kind in KINDS.items() for word in kind.words]


def test_parts_name_their_own_kind_once() -> None:
    for name, word in WORDS:
        for part in KINDS[name].parts:
            assert [(m.kind, m.word) for m in find_mentions(word + part)] == [(name, word)], word + part


def test_every_word_takes_every_colour() -> None:
    shades = [(colour, shade) for colour, words in COLOUR_WORDS.items() for shade in words]
    for (name, word), (colour, shade) in product(WORDS, shades):
        for text in (f"右边有{shade}的{word}。", f"右边有{word}是{shade}的。"):
            found = find_mentions(text)
            assert [(m.kind, m.word, m.colour, m.negated) for m in found] == [(name, word, colour, False)], text


@pytest.mark.parametrize(
    ("text", "far"),
    [
        ("远处有一只狗。", [True]),
        ("狗在远处。", [False]),
        ("狗和猫之间是远方的鸟。", [False, False, True]),
        ("远处是大海，左侧有狗。", [False]),  # another clause
        ("较远处有狗和猫。", [True, True]),
    ],
)
def test_a_mention_is_far_after_a_word_for_it(text: str, far: list[bool]) -> None:
    assert [mention.far for mention in find_mentions(text)] == far


_PIECES = sorted(
    {word for kind in KINDS.values() for word in kind.words + kind.parts}
    | {word for words in COLOUR_WORDS.values() for word in words}
    | set("的是有没不看到远处颜色和、，。\n小大一只雪浪地书")
    | {"没有", "看不到", "\ufffd", "a"}
)


@given(st.one_of(st.text(), st.lists(st.sampled_from(_PIECES), max_size=30).map("".join)))
@settings(max_examples=300, deadline=None)
def test_broken_text_raises_no_error(text: str) -> None:
    found = find_mentions(text)
    assert all(text[m.start : m.end] == m.word and m.word in KINDS[m.kind].words for m in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert parse_yes_no(text, "dog") in ("yes", "no", None)
    assert 0.0 <= repetition(text) < 1.0


@pytest.mark.parametrize("before", ["比", "和", "是", "有", "的", "棵"])
def test_every_word_is_found_after_the_words_that_texts_put_before_it(before: str) -> None:
    """No kind's word is read across a border of words: 比 and 萨克斯 would contain 比萨."""
    for kind, entry in KINDS.items():
        for word in entry.words:
            assert [(m.kind, m.word) for m in find_mentions(f"树{before}{word}更靠左。")][-1:] == [(kind, word)], word


def test_reference_texts_are_read_correctly() -> None:
    data = load_params(PARAMS).data
    for index in range(100):
        scene = sample_scene(data, 1, "test", index)
        coloured = {group.kind for group in scene.groups if group.colour is not None}
        for text in texts_of(scene, Prior.of(data, 0.0), random.Random(index)):
            answer = "".join(text.answer)
            score = score_text(answer, scene)
            assert score.named <= scene.kinds, answer
            if text.task in ("description", "far_first"):
                assert score.named == scene.kinds and set(score.colours) == coloured, answer
            if text.expected in ("yes", "no"):
                assert parse_yes_no(answer) == text.expected, answer
                assert bool(score.named) == (text.expected == "yes"), answer
