"""Counts, places and relations that a text states, against the truth of its scene."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from stages.common.config.params import load_params
from stages.common.world.scene import Group, Scene
from stages.common.world.vocabulary import KINDS
from stages.evaluate.score.claims import claim_right, find_claims
from stages.evaluate.score.mentions import find_mentions
from stages.evaluate.score.texts import score_text
from stages.prepare.scene import sample_scene
from stages.prepare.wording import Prior, texts_of

DESCRIPTIONS = ("description", "far_first")
BOX = ((0.0, 0.0, 0.3, 0.3),)
# A dog on a car at the left, two cats at the right, in one row with the car.
SCENE = Scene(
    "x",
    "street",
    (
        Group("dog", "red", 1, 1, 0, BOX),
        Group("car", "blue", 1, 2, 0, BOX),
        Group("cat", "black", 2, 2, 2, ((0.7, 0.7, 1.0, 1.0),)),
        Group("ball", "black", 1, 2, 1, ((0.45, 0.8, 0.55, 0.9),), near=False),
    ),
    ((0, "on", 1), (1, "beside", 3)),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("图中有一只小狗。", [("count", True)]),
        ("图中有两只小狗。", [("count", False)]),
        ("两只黑色的猫和3只红色小狗", [("count", True), ("count", False)]),
        ("有两位女士。", []),  # not in the picture: hallucinated, and no wrong count
        ("小狗很可爱。", []),
        ("左侧有一只红色的小狗。", [("count", True), ("position", True)]),
        ("右侧有一只红色的小狗。", [("count", True), ("position", False)]),
        ("在马路边，左边可以看到一只狗。", [("count", True), ("position", True)]),
        ("右下角是猫、皮球。", [("position", True), ("position", False)]),  # both are placed
        ("小狗在画面的左边。", [("position", True)]),
        ("小狗位于画面的右上方。", [("position", False)]),
        ("小狗在汽车的上面。", [("relation", True)]),
        ("汽车的上面是小狗。", [("relation", True)]),
        ("汽车在小狗的下面。", [("relation", True)]),  # the same, seen from the other side
        ("小狗在汽车的下面。", [("relation", False)]),
        ("汽车的下面有小狗。", [("relation", False)]),
        ("皮球在汽车的旁边。", [("relation", True)]),
        ("小狗在皮球旁边。", [("relation", False)]),
        ("小狗站在汽车的上面。", [("relation", True)]),
        ("小狗在小狗的旁边。", []),
        ("小狗比皮球更靠左。", [("relation", True)]),
        ("小狗比皮球更靠右。", [("relation", False)]),
        ("小狗比汽车更靠左。", [("relation", False)]),  # neither of them is
        ("小狗在女士的旁边。", []),
        ("小狗和猫之间是远处的皮球。", [("relation", True)]),
        ("猫和小狗之间有皮球。", [("relation", True)]),
        ("皮球和猫之间有小狗。", [("relation", False)]),
        ("皮球和猫的颜色相同。", []),
        ("远处一共有八只猫。", [("count", False)]),
        ("小狗的左边有两只猫。", [("count", True)]),  # a place beside something, not in the picture
        ("没有两只小狗。", []),
        ("", []),
    ],
)
def test_claims(text: str, expected: list[tuple[str, bool]]) -> None:
    mentions = [mention for mention in find_mentions(text) if not mention.negated]
    judged = [(claim.aspect, claim_right(claim, SCENE)) for claim in find_claims(text, mentions)]
    assert [(aspect, right) for aspect, right in judged if right is not None] == expected


def stated(sentence: str) -> set[str]:
    """What is read out of a sentence, in the form of the claims that are stored with it."""
    mentions = [mention for mention in find_mentions(sentence) if not mention.negated]
    found = {f"object:{m.kind}" for m in mentions} | {f"colour:{m.kind}={m.colour}" for m in mentions if m.colour}
    for aspect, (kind, *others), value in find_claims(sentence, mentions):
        if value == "between":
            found.add(f"between:{kind}={','.join(others)}")
        elif aspect == "relation":
            found.add(f"relation:{kind}={value},{others[0]}")
        else:
            found.add(f"{aspect}:{kind}={value if aspect == 'count' else ','.join(map(str, value))}")
    return found


@pytest.mark.parametrize("unsupported", [0.0, 0.05])
def test_what_is_read_out_of_reference_texts_is_what_they_state(unsupported: float) -> None:
    data = load_params(Path(__file__).parents[1] / "params.yaml").data.model_copy(update={"kinds": len(KINDS)})
    counted: Counter[str] = Counter()
    for index in range(300):
        scene = sample_scene(data, 1, "train", index)
        near = {group.kind: group.near for group in scene.groups}
        for text in texts_of(scene, Prior.of(data, unsupported), random.Random(index)):
            introduced: set[str] = set()
            for sentence, claims in zip(text.answer, text.claims, strict=True):
                absent = {claim.partition(":")[2] for claim in claims if claim.startswith("unsupported:")}
                expected = {claim for claim in claims if not claim.startswith("unsupported:")}
                expected |= {f"count:{kind}=1" for kind in absent}  # 旁边还有一只猫
                assert stated(sentence) == expected, (sentence, claims)
                counted.update(claim.partition(":")[0] for claim in claims)
                for mention in find_mentions(sentence) if text.task in DESCRIPTIONS else ():
                    if mention.kind in near and mention.kind not in introduced:
                        assert mention.far != near[mention.kind], sentence
                        introduced.add(mention.kind)
            for claim, right in score_text("".join(text.answer), scene).claims:
                assert right, (text.answer, claim)
    aspects = {"object", "colour", "count", "position", "relation", "between"} | (
        {"unsupported"} if unsupported else set()
    )
    assert set(counted) == aspects and min(counted.values()) > 50
