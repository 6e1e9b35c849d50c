"""Texts of scenes: their order, their claims, and mentions of things that are not in the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from stages.common.config.params import load_params
from stages.common.data.chat import Encoder
from stages.common.world.scene import Scene
from stages.common.world.vocabulary import (
    COLOUR_WORDS,
    FAR_WORDS,
    KINDS,
    POSITION_WORDS,
)
from stages.prepare.wording import Prior, Text
from stages.tokenizer import train_tokenizer
from tests.prepare.worlds import PRIOR, ROOT, scenes, texts


def descriptions(prior: Prior) -> Iterator[tuple[Scene, Text]]:
    for scene in scenes("train"):
        yield from ((scene, text) for text in texts(scene, prior) if text.task in ("description", "far_first"))


def test_captions_name_near_things_only_and_at_most_three() -> None:
    for scene in scenes("train"):
        for text in texts(scene):
            if text.task == "caption":
                (claims,) = text.claims
                named = [claim.removeprefix("object:") for claim in claims if claim.startswith("object:")]
                assert named == [group.kind for group in scene.near[:3]]
                for group in scene.near[:3]:
                    assert f"{'一两三'[group.count - 1]}{KINDS[group.kind].measure}" in text.answer[0]


def test_descriptions_begin_with_near_or_with_far_things_as_asked() -> None:
    for scene, text in descriptions(PRIOR):
        order = (*scene.near, *scene.far) if text.task == "description" else (*scene.far, *scene.near)
        introduced = [claims[0] for claims in text.claims[: len(order)]]
        assert introduced == [f"object:{group.kind}" for group in order]
        assert len(text.answer) == len(text.claims) >= len(scene.groups) + 4
        assert ("远" in text.question) == (text.task == "far_first")
        assert "还有" not in text.answer[0]
        assert all(sentence.endswith("。") and "{" not in sentence for sentence in text.answer)


def test_far_things_are_introduced_by_a_word_for_far() -> None:
    for scene, text in descriptions(PRIOR):
        for group in scene.far:
            sentence = next(
                sentence
                for sentence, claims in zip(text.answer, text.claims, strict=True)
                if f"object:{group.kind}" in claims
            )
            clause = next(
                part for part in sentence.split("，") if any(word in part for word in KINDS[group.kind].words)
            )
            assert clause.startswith(FAR_WORDS), clause


def is_true(claim: str, scene: Scene) -> bool:
    aspect, stated = claim.split(":")
    kind, _, value = stated.partition("=")
    groups = {group.kind: group for group in scene.groups}
    group = groups[kind]
    if aspect == "object":
        return not value
    if aspect in ("colour", "count"):
        return value == str(getattr(group, aspect))
    if aspect == "position":
        return value == f"{group.row},{group.column}"
    one, other = value.split(",")
    if aspect == "between":
        return (group, groups[one], groups[other]) in scene.between
    assert aspect == "relation"
    if one in ("left", "right"):
        step = group.column - groups[other].column
        return step < 0 if one == "left" else step > 0
    return (scene.groups.index(group), one, scene.groups.index(groups[other])) in scene.relations


def test_every_claim_is_true_and_its_object_is_named() -> None:
    for scene in scenes("train"):
        for text in texts(scene):
            for sentence, claims in zip(text.answer, text.claims, strict=True):
                assert all(is_true(claim, scene) for claim in claims), (sentence, claims)
                kinds = [claim.removeprefix("object:") for claim in claims if claim.startswith("object:")]
                assert all(any(word in sentence for word in KINDS[kind].words) for kind in kinds), (sentence, claims)


@pytest.mark.parametrize("share", [0.001, 0.1, 1.0])
def test_popular_questions_are_about_the_most_frequent_kinds(share: float) -> None:
    prior = PRIOR._replace(popular=share)
    limit = max(1, round(share * PRIOR.kinds))
    asked = Counter(
        (scene.kinds >= set(list(KINDS)[:limit]), text.kind in list(KINDS)[:limit])
        for scene in scenes("train", 200)
        for text in texts(scene, prior)
        if text.task == "popular" and text.expected == "no"
    )
    # Another kind only where all of the popular ones are in the picture.
    assert asked[False, True] > 50 and not asked[False, False] and not asked[True, True]


def test_unsupported_mentions_are_at_home_absent_and_more_frequent_further_down() -> None:
    rate = Counter()
    seen = Counter()
    for scene, text in descriptions(PRIOR._replace(unsupported=0.02)):
        false = [claim for claims in text.claims for claim in claims if claim.startswith("unsupported:")]
        assert len(set(false)) == len(false)
        for number, claims in enumerate(text.claims):
            absent = [claim.removeprefix("unsupported:") for claim in claims if claim.startswith("unsupported:")]
            for kind in absent:
                assert kind not in scene.kinds and scene.background in KINDS[kind].homes
                assert any(word in text.answer[number].split("，")[-1] for word in KINDS[kind].words)
            assert all(is_true(claim, scene) for claim in claims if claim.split(":")[1] not in absent)
            seen[number] += 1
            rate[number] += len(absent)
    for number in (0, 5, 10):
        assert rate[number] / seen[number] == pytest.approx(0.02 * number, abs=0.035)


def test_without_unsupported_mentions_all_else_is_the_same() -> None:
    for scene in scenes("train", 100):
        for clean, other in zip(texts(scene), texts(scene, PRIOR._replace(unsupported=0.3)), strict=True):
            if clean.task not in ("description", "far_first"):
                assert other == clean
            assert (other.question, len(other.answer)) == (clean.question, len(clean.answer))
            for true, long in zip(clean.answer, other.answer, strict=True):
                assert long.startswith(true.removesuffix("。"))


def test_the_fullest_descriptions_are_longer_than_256_tokens() -> None:
    """`-S sft.max_len=256`, the example in the documentation, includes more text than the default, but not all."""
    found = [text for scene in scenes("train") for text in texts(scene)]
    corpus = (part for text in found for part in (f"user\n{text.question}", "assistant\n" + "".join(text.answer)))
    params = load_params(ROOT / "tests/params.yaml")
    encoder = Encoder(train_tokenizer(corpus, params.tokenizer))
    lengths = [sum(len(encoder.ids(part)) for part in text.answer) for text in found if text.task == "description"]
    assert max(lengths) > 256 and sum(length > 2 * params.sft.max_len for length in lengths) > 0.1 * len(lengths)


def test_a_positive_answer_includes_position_and_colour() -> None:
    for scene in scenes("train", 100):
        groups = {group.kind: group for group in scene.groups}
        for text in texts(scene):
            if text.expected == "yes":
                group, answer = groups[text.kind], text.answer[0]
                assert any(place in answer for place in POSITION_WORDS[group.row, group.column])
                stated = [name for name, words in COLOUR_WORDS.items() if any(f"{word}的" in answer for word in words)]
                assert stated == ([] if group.colour is None else [group.colour])
                assert any(word in answer for word in FAR_WORDS) != group.near
