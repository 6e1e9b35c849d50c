"""Misnamed and hallucinated objects: examples worked out by hand, and properties of any text."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.world.scene import Group, Scene
from stages.common.world.vocabulary import COLOUR_WORDS, KINDS, POSITION_WORDS
from stages.evaluate.score.bootstrap import Bootstrap
from stages.evaluate.score.misnamed import maximum_matching
from stages.evaluate.score.texts import TEXT_METRICS, mention_rows, score_text

BOX = ((0.0, 0.0, 0.3, 0.3),)
# A red dog at the left, a blue cat at the right, a white house above.
SCENE = Scene(
    "x",
    "seaside",
    (
        Group("dog", "red", 1, 1, 0, BOX),
        Group("cat", "blue", 1, 1, 2, BOX),
        Group("house", "white", 1, 0, 1, BOX),
    ),
    (),
)


@pytest.mark.parametrize(
    ("text", "misnamed"),
    [
        ("有一只红色的兔子。", {"rabbit"}),  # the dog's colour
        ("左侧有一只兔子。", {"rabbit"}),  # the dog's place
        ("左侧有一只黑色的兔子。", {"rabbit"}),  # its place, not its colour
        ("有一只兔子。", set()),  # nothing is stated of it
        ("有一只黑色的兔子。", set()),
        ("有一辆红色的汽车。", set()),  # the dog's colour, another parent class
        ("正上方有一座白色的房子和一只红色的兔子。", {"rabbit"}),
        ("有一只红色的狗，还有一只红色的兔子。", set()),  # the dog has its own name
        ("没有红色的狗，有一只红色的兔子。", {"rabbit"}),  # a denied dog is not named
        ("没有红色的兔子。", set()),
        ("有红色的兔子，有红色的熊猫。", {"rabbit"}),  # one dog explains one of them, the first
        ("有红色的兔子，有蓝色的熊猫。", {"rabbit", "panda"}),
        ("有黑色的兔子。兔子是红色的。", set()),  # the first stated colour counts
        ("有兔子。兔子是红色的。", {"rabbit"}),
    ],
)
def test_misnamed_kinds(text: str, misnamed: set[str]) -> None:
    assert score_text(text, SCENE).misnamed == misnamed


def test_all_mentions_of_a_misnamed_kind_are_misnamed() -> None:
    score = score_text("有一只红色的兔子。兔子的旁边是一条鱼，兔子很白。有一座房子。", SCENE)
    rows = mention_rows(score)["mentions"]
    assert [(m["kind"], m["supported"], m["misnamed"]) for m in rows] == [
        ("rabbit", False, True),
        ("rabbit", False, True),
        ("fish", False, False),
        ("rabbit", False, True),
        ("house", True, False),
    ]
    found = Bootstrap(1, 10, 0.95, 1).of_sums([score.counts(frozenset())], TEXT_METRICS)
    assert [found[name].value for name in ("misnamed", "hallucinated", "chair_i")] == pytest.approx([0.6, 0.2, 0.8])


_PHRASES = st.builds(
    "{}有一只{}的{}。".format,
    st.sampled_from([words[0] for words in POSITION_WORDS.values()]),
    st.sampled_from([words[0] for words in COLOUR_WORDS.values()]),
    st.sampled_from([kind.words[0] for kind in KINDS.values()]),
)
_GROUPS = st.lists(
    st.builds(
        Group,
        st.sampled_from(sorted(KINDS)),
        st.sampled_from(sorted(COLOUR_WORDS)),
        st.just(1),
        st.integers(0, 2),
        st.integers(0, 2),
        st.just(BOX),
    ),
    max_size=6,
    unique_by=lambda group: group.kind,
)


@given(_GROUPS, st.lists(_PHRASES, max_size=12).map("".join))
@settings(max_examples=300, deadline=None)
def test_misnamed_and_hallucinated_are_all_that_is_wrong(groups: list[Group], text: str) -> None:
    scene = Scene("x", "seaside", tuple(groups), ())
    score = score_text(text, scene)
    counts = score.counts(frozenset())
    assert counts["misnamed_mentions"] + counts["hallucinated_mentions"] == counts["wrong_mentions"]
    assert not score.misnamed & scene.kinds
    unnamed = [KINDS[group.kind].parent for group in groups if group.kind not in score.named]
    misnamed = [KINDS[kind].parent for kind in score.misnamed]
    assert all(misnamed.count(parent) <= unnamed.count(parent) for parent in misnamed)


@given(st.dictionaries(st.sampled_from("abcde"), st.lists(st.integers(0, 4), unique=True), max_size=5))
def test_a_matching_is_the_largest_there_is(choices: dict[str, list[int]]) -> None:
    found = maximum_matching(choices)
    assert all(choice in choices[key] for key, choice in found.items())
    assert len(set(found.values())) == len(found)
    # Keys beyond the five choices stay without one.
    best = max(
        sum(choice in choices[key] for key, choice in zip(choices, order, strict=False))
        for order in permutations(range(5))
    )
    assert len(found) == best


def test_every_kind_shares_its_parent_with_what_it_could_be_taken_for() -> None:
    assert KINDS["dog"].parent == KINDS["bird"].parent == "animal"
    assert KINDS["woman"].parent == KINDS["astronaut"].parent == "person"
    assert KINDS["tree"].parent != KINDS["house"].parent
