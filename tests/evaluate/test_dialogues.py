"""Evaluation where no truth is known: losses, forms of texts, and rows that a decoder has no room for."""

from __future__ import annotations

import io
import math
import shutil
from pathlib import Path

import pytest
from PIL import Image

from stages.common.config.params import Params, load_params
from stages.common.data.shards import write_empty_shard, write_shard
from stages.evaluate.answers import Answerer
from stages.evaluate.dialogues import evaluate_dialogues, lexicon_spans
from stages.evaluate.score.lexicon import load_lexicon

ROOT = Path(__file__).parents[2]


def turn(question: str, *answer: str) -> dict:
    return {"task": "turn", "question": question, "answer": list(answer), "kind": "", "expected": ""}


def row(name: str, *turns: dict) -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 30), "red").save(buffer, "PNG")
    pictures = sum(t["question"].count("<image>") for t in turns)
    images = [{"bytes": buffer.getvalue(), "path": "x.png"}] * pictures
    return {"id": name, "images": images, "scene": "", "texts": list(turns)}


ROWS = [
    row("one", turn("<image>\nwhat?", "a dog.")),
    row("text", turn("hello", "hello\u2028you.")),
    row("two", turn("<image><image>both?", "dogs."), turn("red?", "yes.")),
    row("long", turn("<image>" + "what is this? " * 100, "a dog.")),
]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    folder = tmp_path / "data/prepared"
    folder.mkdir(parents=True)
    write_shard(folder / "test-00000.parquet", ROWS)
    shutil.copytree(ROOT / "data/eval", tmp_path / "data/eval")
    monkeypatch.chdir(tmp_path)
    params = load_params(ROOT / "tests/params.yaml")
    evaluate = params.evaluate.model_copy(update={"max_new_tokens": 4, "bootstrap_samples": 20, "scenes": 10})
    return params.model_copy(
        update={
            "evaluate": evaluate,
            "data": params.data.model_copy(update={"image_size": 16, "source": "jsonl"}),
            "encode": params.encode.model_copy(update={"cache": False}),
        }
    )


def test_the_loss_is_that_of_an_even_guess_over_all_targets(answerer: Answerer, params: Params, tmp_path: Path) -> None:
    """Untrained, a target costs the logarithm of the vocabulary's size; a row without room for its answer adds none."""
    write_empty_shard(tmp_path / "data/prepared/fixed-00000.parquet")
    found = evaluate_dialogues(answerer, params, "x")
    assert found.scenes == 4 and found.shown == []
    assert found.estimates["loss"].value == pytest.approx(
        math.log(answerer.model.config.text_config.vocab_size), abs=0.2
    )
    answers = {answer["id"]: answer for answer in found.rows}
    assert list(answers) == ["one", "text", "two", "long"]
    assert answers["long"]["answer"] == "" and answers["text"]["reference"] == "hello\u2028you."
    assert all(answers[name]["answer"] for name in ("one", "text", "two"))


def test_photographs_are_asked_both_prompts(answerer: Answerer, params: Params, tmp_path: Path) -> None:
    photographs = [row("舞蹈-dance", turn("<image>")), row("熊猫", turn("<image>"))]
    write_shard(tmp_path / "data/prepared/fixed-00000.parquet", [photo | {"texts": []} for photo in photographs])
    found = evaluate_dialogues(answerer, params, "x")
    asked = [(answer["id"], answer["task"], answer["prompt"]) for answer in found.rows if answer["split"] == "fixed"]
    assert sorted(asked) == sorted(
        (name, task, prompt)
        for name in ("舞蹈-dance", "熊猫")
        for task, prompt in (("description", "描述一下这个图像的内容。"), ("caption", "提供给定图像的简要描述。"))
    )
    assert [name for name, _ in found.shown] == ["舞蹈-dance", "熊猫"]


def test_photographs_of_the_manifest_are_counted(
    answerer: Answerer, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"简要": "一只猫。", "描述": "一只熊猫和一只狗在草地上。"}
    monkeypatch.setattr(
        answerer,
        "answer",
        lambda questions, *rest: [next((s for p, s in said.items() if p in q.prompt), "") for q in questions],
    )
    photographs = [row(name, turn("<image>")) for name in ("熊猫草地-Panda-Grassland", "不在清单里")]
    write_shard(tmp_path / "data/prepared/fixed-00000.parquet", [photo | {"texts": []} for photo in photographs])
    found = evaluate_dialogues(answerer, params, "x")
    assert found.estimates["photograph_recall"].value == 1.0
    assert found.estimates["photograph_chair_i"].value == pytest.approx(1 / 3)
    assert found.estimates["caption_photograph_recall"].value == 0.0
    described = [answer for answer in found.rows if answer["split"] == "fixed" and answer["task"] == "description"]
    listed, unknown = described
    assert [(m["kind"], m["supported"]) for m in listed["mentions"]] == [("熊猫", True), ("狗", False), ("草地", True)]
    assert listed["missed"] == [] and unknown["mentions"] == []


def test_words_of_the_lexicon_count_when_they_are_new() -> None:
    lexicon = load_lexicon(ROOT / "data/eval/lexicon.yaml")
    text = "红色的狗和小狗，红色的猫"
    assert sorted((text[start:end], name) for start, end, name in lexicon_spans(text, lexicon)) == [
        ("狗", "object"),
        ("猫", "object"),
        ("红色", "colour"),
    ]
