"""Answers and losses where no truth is known, also of rows that leave the decoder no positions for an answer."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.common.config.params import Params, load_params
from stages.common.data.shards import write_empty_shard, write_shard
from stages.evaluate.answer.answerer import Answerer
from stages.evaluate.answer.dialogues import answer_dialogues, other_pictures
from stages.evaluate.files import FILE_PROMPTS, read_answers, read_losses

ROOT = Path(__file__).parents[2]


def turn(question: str, *answer: str) -> dict:
    return {"task": "turn", "question": question, "answer": list(answer), "kind": "", "expected": ""}


def row(name: str, *turns: dict, colour: str = "red") -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 30), colour).save(buffer, "PNG")
    pictures = sum(t["question"].count("<image>") for t in turns)
    images = [{"bytes": buffer.getvalue(), "path": "x.png"}] * pictures
    return {"id": name, "images": images, "scene": "", "texts": list(turns)}


ROWS = [
    row("one", turn("<image>\nwhat?", "a dog.")),
    row("text", turn("hello", "hello\u2028you.")),
    row("two", turn("<image><image>both?", "dogs."), turn("red?", "yes."), colour="blue"),
    row("long", turn("<image>" + "what is this? " * 100, "a dog.")),
]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    folder = tmp_path / "data/prepared"
    folder.mkdir(parents=True)
    write_shard(folder / "test-00000.parquet", ROWS)
    write_empty_shard(folder / "fixed-00000.parquet")
    (tmp_path / "data/features").mkdir()
    np.save(tmp_path / "data/mean_features.npy", np.full((4, 8), 0.5, np.float32))
    monkeypatch.chdir(tmp_path)
    params = load_params(ROOT / "tests/params.yaml")
    evaluate = params.evaluate.model_copy(update={"max_new_tokens": 4, "scenes": 10})
    return params.model_copy(
        update={
            "evaluate": evaluate,
            "data": params.data.model_copy(update={"image_size": 16, "source": "jsonl"}),
            "encode": params.encode.model_copy(update={"cache": False}),
        }
    )


def test_first_questions_are_answered_where_there_are_positions(
    answerer: Answerer, params: Params, tmp_path: Path
) -> None:
    answer_dialogues(answerer, params, tmp_path, "x", "test")
    answers = {answer.id: answer for answer in read_answers(tmp_path)}
    assert list(answers) == ["one", "text", "two", "long"]
    assert answers["long"].answer == "" and answers["text"].reference == "hello\u2028you."
    assert all(answers[name].answer for name in ("one", "text", "two"))
    assert answers["two"].prompt == "both?"
    assert {(answer.split, answer.task) for answer in answers.values()} == {("test", "description")}


def test_losses_are_those_of_an_even_guess_over_all_targets(answerer: Answerer, params: Params, tmp_path: Path) -> None:
    """Untrained, a target costs the logarithm of the vocabulary's size; a row without a target in reach has none."""
    answer_dialogues(answerer, params, tmp_path, "x", "test")
    losses = {text.id: text for text in read_losses(tmp_path)}
    assert {text.task for text in losses.values()} == {"dialogue"}
    assert losses["two"].text == "dogs.\nyes."
    assert len(losses["long"].own) == len(losses["long"].starts) == 0
    even = math.log(answerer.model.config.text_config.vocab_size)
    for name in ("one", "text", "two"):
        text = losses[name]
        assert text.own.mean() == pytest.approx(even, abs=0.5)
        assert len(text.own) == len(text.starts) == len(text.ends)
    assert losses["text"].other_id == "" and len(losses["text"].other) == 0
    assert not len(losses["text"].blind)  # it has no picture
    assert losses["one"].other_id == "two" and len(losses["one"].other) == len(losses["one"].own)


def test_both_prompts_are_answered_for_photographs(answerer: Answerer, params: Params, tmp_path: Path) -> None:
    names = ("舞蹈-dance", "熊猫")
    photographs = [row(name, turn("<image>")) | {"texts": []} for name in names]
    write_shard(tmp_path / "data/prepared/fixed-00000.parquet", photographs)
    answer_dialogues(answerer, params, tmp_path, "x", "test")
    found = [(a.id, a.task, a.prompt) for a in read_answers(tmp_path) if a.split == "fixed"]
    assert found == [(name, task, prompt) for task, prompt in FILE_PROMPTS.items() for name in names]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ([[0, 1], [2, 3], []], [[2, 3], [0, 1], None]),
        ([[0], [1], [2]], [[1], [2], [0]]),
        ([[0]], [None]),
        ([[0, 1]], [None]),
        ([[0, 1, 2], [3]], [None, [1]]),
        ([], []),
    ],
)
def test_other_pictures_are_never_a_text_s_own(shown: list[list[int]], expected: list[list[int] | None]) -> None:
    assert other_pictures(shown) == expected
