"""Evaluation where no truth is known: losses, forms of texts, and rows that a decoder has no room for."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from PIL import Image

from stages.common.params import Params, load_params
from stages.common.shards import write_empty_shard, write_shard
from stages.evaluate.answers import Answerer
from stages.evaluate.dialogues import evaluate_dialogues

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
