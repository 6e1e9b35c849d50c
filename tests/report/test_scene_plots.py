"""Pictures for `dvc plots`: all of them, in order, with every mention in its colour."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from stages.common.world.scene import Scene
from stages.report.run.load_run import load_run
from stages.report.scene_plots import scene_plots, wrapped
from stages.report.scene_views import Segment
from tests.report.conftest import SCENES, mention

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_each_picture_has_a_drawing_with_every_checkpoint(inputs):
    run = load_run(inputs.params, inputs.root)
    drawn = scene_plots(run)
    assert list(drawn) == ["01-dog.svg", "02-cat.svg"]
    for svg in drawn.values():
        assert [text for text in texts(svg) if text in run.checkpoints] == list(run.checkpoints)
        assert svg.count('href="data:image/png;base64,') == 1
    assert "小狗" in texts(drawn["01-dog.svg"]) and "1 × 小狗 red dog" in texts(drawn["01-dog.svg"])


def test_mentions_have_their_colours_and_are_counted(inputs):
    text = "红色的小狗和绿色的球，还有鱼和鸟。"
    mentions = (
        mention(text, "小狗", "dog"),
        mention(text, "球", "ball", colour="green", colour_right=False),
        mention(text, "鱼", "fish", supported=False),
        mention(text, "鸟", "bird", supported=False, misnamed=True),
    )
    answer = inputs.answer(text, mentions, missed=("cat",))
    inputs.write_answers("sft-long", {"小狗-dog": answer, "cat": inputs.answer("没有。")})
    drawn = scene_plots(load_run(inputs.params, inputs.root))
    tree = ElementTree.fromstring(drawn["01-dog.svg"])
    fills = {span.text: span.get("fill") for span in tree.iter(f"{SVG}tspan")}
    assert fills["小狗"] == fills["in the picture"] != fills["hallucinated"]
    assert fills["鱼"] == fills["hallucinated"] and fills["球"] == fills["in another colour"]
    assert fills["鸟"] == fills["misnamed"]
    assert len({fills[word] for word in ("小狗", "鱼", "鸟", "球", "红色的")}) == 5
    assert "2 in the picture · 1 misnamed · 1 hallucinated · missed: 小猫" in texts(drawn["01-dog.svg"])
    assert "hallucinated" not in drawn["02-cat.svg"]  # no mentions: no legend


def test_characters_that_xml_does_not_allow_are_replaced(inputs):
    text = "A < B & C\x0b\x00。\nD"
    inputs.write_answers("pretrain", {scene.id: inputs.answer(text) for scene in SCENES})
    drawn = texts(scene_plots(load_run(inputs.params, inputs.root))["02-cat.svg"])
    assert "A < B & C\ufffd\ufffd。" in drawn and "D" in drawn


def test_a_photograph_has_a_drawing(inputs):
    text = "一只小狗和一条鱼。"
    answer = inputs.answer(text, (mention(text, "小狗", "dog"), mention(text, "鱼", "fish", supported=False)))
    inputs.write_answers("sft-long", {"小狗-dog": answer, "cat": inputs.answer("没有。")})
    run = load_run(inputs.params, inputs.root)
    photographs = tuple(picture._replace(scene=None) for picture in run.pictures)
    drawn = scene_plots(replace(run, pictures=photographs))
    assert 'href="data:image/jpeg;base64,' in drawn["01-dog.svg"]
    assert "1 listed · 1 not listed" in texts(drawn["01-dog.svg"])
    for svg in drawn.values():
        assert "in the picture" not in svg and "hallucinated" not in "".join(texts(svg))


def test_file_names_are_ascii_and_unique(inputs):
    group = SCENES[1].groups
    scenes = tuple(Scene(name, "room", group, ()) for name in ("猫", "狗", "a b/../c", "猫-cat"))
    inputs.write_pictures(scenes)
    for name in ("pretrain", "sft-short", "sft-long", "sft-direct"):
        inputs.write_answers(name, {scene.id: inputs.answer("有。") for scene in scenes})
    names = list(scene_plots(load_run(inputs.params, inputs.root)))
    assert len(set(names)) == 4 and names == sorted(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+\.svg", name) for name in names)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("一二三四五六", ["一二三四", "五六"]),
        ("一二三四。五", ["一二三四。", "五"]),  # a full stop may exceed the width
        ("一\n二", ["一", "二"]),
        ("abcdefg八", ["abcdefg", "八"]),
        ("", [""]),
    ],
)
def test_lines_are_wrapped_by_width(text: str, lines: list[str]) -> None:
    assert ["".join(part for part, _ in line) for line in wrapped([Segment(text, "plain", "")], 4)] == lines


def test_a_mention_keeps_its_state_across_lines() -> None:
    segments = [Segment("一二三", "plain", ""), Segment("小狗", "right", "")]
    assert wrapped(segments, 4) == [[("一二三", "plain"), ("小", "right")], [("狗", "right")]]
