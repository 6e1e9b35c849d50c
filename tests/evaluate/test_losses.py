"""Losses of reference texts by picture, on losses made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.world.scene import Group, Scene
from stages.evaluate.files import TextLosses
from stages.evaluate.score.bootstrap import Bootstrap, Estimate
from stages.evaluate.score.lexicon import load_lexicon
from stages.evaluate.score.losses import (
    ALTERNATIVE_METRICS,
    LOSS_METRICS,
    TOKEN_CLASSES,
    lexicon_spans,
    loss_counts,
    token_classes,
    two_alternative_counts,
    world_spans,
)

ROOT = Path(__file__).parents[2]
BOX = ((0.0, 0.0, 0.3, 0.3),)
TEXT = "红色的小狗和狗，蓝色的猫。"
PIECES = ("红色", "的小", "狗", "和", "狗", "，", "蓝", "色", "的", "猫。", "")  # the last one closes the text


def scene(*kinds: str) -> Scene:
    return Scene("-".join(kinds), "seaside", tuple(Group(kind, "red", 1, 1, 1, BOX) for kind in kinds), ())


def losses(own: list[float], other: list[float], blind: list[float] | None = None) -> TextLosses:
    ends = np.cumsum([len(piece) for piece in PIECES]).astype(np.int32)
    starts = ends - [len(piece) for piece in PIECES]
    arrays = [np.array(nats if nats is not None else [], np.float32) for nats in (own, other, blind)]
    return TextLosses("a", "description", TEXT, starts, ends, *arrays, "b" if other else "")


def metrics(*texts: TextLosses) -> dict[str, Estimate]:
    rows = [loss_counts(text, world_spans) for text in texts]
    return Bootstrap(len(rows), 10, 0.95, 1).of_sums(rows, LOSS_METRICS)


def choice(own: list[float], other: list[float], shown: Scene, other_scene: Scene) -> Estimate:
    row = two_alternative_counts(losses(own, other), shown, other_scene)
    return Bootstrap(1, 10, 0.95, 1).of_sums([row], ALTERNATIVE_METRICS)["two_alternative"]


def test_words_count_when_they_are_new() -> None:
    text = "红色的小狗和狗，红色的猫，没有蓝色的猫"
    found = [(text[start:end], name) for start, end, name in world_spans(text)]
    assert sorted(found) == sorted([("小狗", "object"), ("猫", "object"), ("红色", "colour"), ("蓝色", "colour")])
    assert min(start for start, _, name in world_spans(text) if name == "colour") == 0


def test_the_measure_word_of_a_new_kind_counts_as_well() -> None:
    text = "左侧是一棵绿色的大树，还有两只狗。树和一只狗。"
    found = [text[start:end] for start, end, name in world_spans(text) if name == "object"]
    assert sorted(found) == sorted(["棵", "大树", "只", "狗"])


def test_words_of_the_lexicon_count_when_they_are_new() -> None:
    text = "红色的狗和小狗，红色的猫"
    lexicon = load_lexicon(ROOT / "data/eval/lexicon.yaml")
    found = [(text[start:end], name) for start, end, name in lexicon_spans(text, lexicon)]
    assert sorted(found) == sorted([("狗", "object"), ("猫", "object"), ("红色", "colour")])


def test_tokens_have_the_class_of_the_words_that_they_cover() -> None:
    own = [1.0] * len(PIECES)
    found = token_classes(losses(own, []), world_spans(TEXT))
    words = {name: [PIECES[i] for i in np.flatnonzero(found == number)] for number, name in enumerate(TOKEN_CLASSES)}
    assert words == {
        "object": ["的小", "狗", "猫。"],
        "colour": ["红色", "蓝", "色"],
        "rest": ["和", "狗", "，", "的", ""],
    }


def test_a_text_without_targets_has_no_classes() -> None:
    empty = TextLosses("a", "dialogue", "", *[np.zeros(0, np.int32)] * 2, *[np.zeros(0, np.float32)] * 3, "")
    assert len(token_classes(empty, [])) == 0 and loss_counts(empty, world_spans) == {"targets": 0, "nats": 0}


def test_gaps_are_differences_of_losses_by_class() -> None:
    own, other = [1.0] * 11, [1.5, 3, 3, 1, 1, 1, 1.5, 1.5, 1, 3, 1]
    blind = [2.0, 6, 6, 2, 2, 2, 2, 2, 2, 6, 2]
    found = metrics(losses(own, other, blind))
    values = {name: estimate.value for name, estimate in found.items()}
    assert values == pytest.approx(
        {
            "loss": 1,
            "swap_gap": 7.5 / 11,
            "swap_gap_object": 2,
            "swap_gap_colour": 0.5,
            "swap_gap_rest": 0,
            "blind_gap": 23 / 11,
            "blind_gap_object": 5,
        }
    )


def test_a_text_without_another_picture_adds_nothing_to_the_swap_gap() -> None:
    own, other, blind = [1.0] * 11, [2.0] * 11, [4.0] * 11
    found = metrics(losses(own, []), losses(own, other, blind))
    assert found["swap_gap"].value == 1 and found["blind_gap"].value == 3
    alone = metrics(losses(own, []))
    assert alone["loss"].value == 1 and np.isnan([alone["swap_gap"].value, alone["blind_gap_object"].value]).all()


@pytest.mark.parametrize(
    ("nats", "expected"),
    [
        ([1.0] * 11, 0.5),  # equal losses
        ([1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 1], 1.0),  # both words cost more with the other picture
        ([1, 2, 1, 1, 1, 1, 1, 1, 1, 0.5, 1], 0.5),  # one of the two
        ([9, 0.5, 0.5, 9, 9, 9, 9, 9, 9, 0.5, 9], 0.0),  # what is no first mention does not count
        ([1, 0.5, 2, 1, 1, 1, 1, 1, 1, 1, 1], 0.75),  # the tokens of a word are summed: right, and a tie
    ],
)
def test_two_alternative_choices(nats: list[float], expected: float) -> None:
    assert choice([1.0] * 11, nats, scene("dog", "cat"), scene("car")).value == pytest.approx(expected)


def test_the_picture_can_show_in_the_measure_word_alone() -> None:
    pieces = ("一", "只", "红色", "的", "小狗", "")
    ends = np.cumsum([len(piece) for piece in pieces]).astype(np.int32)
    starts = ends - [len(piece) for piece in pieces]
    own, other = np.array([1, 1, 9, 1, 1, 1], np.float32), np.array([1, 3, 1, 1, 0.5, 1], np.float32)
    text = TextLosses("a", "caption", "".join(pieces), starts, ends, own, other, own, "b")
    assert two_alternative_counts(text, scene("dog"), scene("car"))["right"] == 1
    counts = loss_counts(text, world_spans)
    assert (counts["swap_object_targets"], counts["swap_object_nats"]) == (2, 1.5)


@given(st.lists(st.floats(0, 20, width=32), min_size=22, max_size=22))
def test_exchanging_the_pictures_reverses_the_choice(nats: list[float]) -> None:
    own, other = nats[:11], nats[11:]
    one, opposite = (choice(*both, scene("dog", "cat"), scene("car")).value for both in ((own, other), (other, own)))
    assert one + opposite == pytest.approx(1)


def test_only_kinds_that_tell_the_pictures_apart_are_counted() -> None:
    right, wrong = [1.0] * 11, [2.0] * 11
    assert two_alternative_counts(losses(right, wrong), scene("dog", "cat"), scene("dog"))["alternatives"] == 1
    # Named in the text, and in neither picture.
    assert np.isnan(choice(right, wrong, scene("car"), scene("bus")).value)
    assert np.isnan(choice(right, wrong, scene("dog", "cat"), scene("cat", "dog")).value)


def test_a_text_that_is_cut_off_counts_the_words_that_it_reaches() -> None:
    complete = losses([1.0] * 11, [2.0] * 11)
    part = TextLosses(
        "a",
        "description",
        TEXT,
        *(array[:4] for array in (complete.starts, complete.ends, complete.own)),
        complete.other[:4],
        complete.blind,
        "b",
    )
    assert two_alternative_counts(part, scene("dog", "cat"), scene("car"))["alternatives"] == 1
