"""Answers, losses and hidden states on the built-in world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stages.common.config.params import Params, load_params
from stages.common.data.shards import write_shard
from stages.evaluate.answer.answerer import Answerer
from stages.evaluate.answer.scenes import answer_scenes, other_rows
from stages.evaluate.files import WORLD_PROMPTS, read_answers, read_hidden, read_losses

ROOT = Path(__file__).parents[2]
BACKGROUNDS = {"test": ["海边", "雪地", "海边", "草地", "海边"], "validation": ["雪地"] * 3, "fixed": ["街道"] * 2}


def text(task: str, question: str, answer: str, kind: str = "", expected: str = "") -> dict:
    return {"task": task, "question": question, "answer": [answer], "kind": kind, "expected": expected}


def row(split: str, number: int, background: str) -> dict:
    texts = [
        text("description", "?", f"a dog and {number} cats."),
        text("far_first", "?", "far: a dog."),
        text("caption", "?", "a dog."),
        text("caption", "?", "not the first one."),
        text("random", "图中有狗吗？", "有。", "狗", "yes"),
        text("adversarial", "图中有猫吗？", "没有。", "猫", "no"),
    ]
    return {"id": f"{split}-{number}", "images": [], "scene": json.dumps({"background": background}), "texts": texts}


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    (tmp_path / "data/prepared").mkdir(parents=True)
    (tmp_path / "data/features").mkdir()
    rng = np.random.default_rng(0)
    for split, backgrounds in BACKGROUNDS.items():
        rows = [row(split, number, background) for number, background in enumerate(backgrounds)]
        write_shard(tmp_path / f"data/prepared/{split}-00000.parquet", rows)
        np.save(tmp_path / f"data/features/{split}.npy", rng.normal(size=(len(rows), 4, 8)).astype(np.float16))
    np.save(tmp_path / "data/mean_features.npy", np.full((4, 8), 0.5, np.float32))
    monkeypatch.chdir(tmp_path)
    params = load_params(ROOT / "tests/params.yaml")
    evaluate = params.evaluate.model_copy(update={"max_new_tokens": 4, "scenes": 5, "far_first_scenes": 2})
    return params.model_copy(update={"evaluate": evaluate})


def test_every_prompt_and_question_has_its_answer(answerer: Answerer, params: Params, tmp_path: Path) -> None:
    answer_scenes(answerer, params, tmp_path, "x", "test")
    answers = read_answers(tmp_path)
    asked = [(answer.split, answer.task, answer.id) for answer in answers]
    assert len(set(asked)) == len(asked)
    for split in ("test", "fixed"):
        for task in ("description", "caption"):
            prompt = WORLD_PROMPTS[task]
            found = [answer for answer in answers if (answer.split, answer.task) == (split, task)]
            assert [answer.id for answer in found] == [f"{split}-{n}" for n in range(len(BACKGROUNDS[split]))]
            assert {answer.prompt for answer in found} == {prompt}
            assert {answer.kind + answer.expected for answer in found} == {""}
    far_first = [answer for answer in answers if answer.task == "far_first"]
    assert [answer.id for answer in far_first] == ["test-0", "test-1"]
    assert {answer.prompt for answer in far_first} == {"请由远及近地描述这张图片。"}
    assert far_first[0].reference == "far: a dog."
    questions = [answer for answer in answers if answer.task in ("random", "adversarial")]
    assert [(answer.id, answer.kind, answer.expected) for answer in questions[:3]] == [
        ("test-0", "狗", "yes"),
        ("test-0", "猫", "no"),
        ("test-1", "狗", "yes"),
    ]
    assert len(questions) == 10


def test_losses_of_one_reference_a_task(answerer: Answerer, params: Params, tmp_path: Path) -> None:
    answer_scenes(answerer, params, tmp_path, "x", "test")
    losses = read_losses(tmp_path)
    tasks = ("description", "caption")
    assert [(loss.task, loss.id) for loss in losses] == [(task, f"test-{n}") for task in tasks for n in range(5)]
    assert losses[1].text == "a dog and 1 cats." and losses[6].text == "a dog."
    scene = {f"test-{number}": background for number, background in enumerate(BACKGROUNDS["test"])}
    for loss in losses:
        alone = BACKGROUNDS["test"].count(scene[loss.id]) == 1
        assert (loss.other_id == "") == alone and len(loss.other) == (0 if alone else len(loss.own))
        if not alone:
            assert loss.other_id != loss.id and scene[loss.other_id] == scene[loss.id]


def test_hidden_states_of_all_scenes(answerer: Answerer, params: Params, tmp_path: Path) -> None:
    answer_scenes(answerer, params, tmp_path, "x", "test")
    config = answerer.model.config.text_config
    for split in ("validation", "test"):
        hidden = read_hidden(tmp_path, split)
        assert hidden.dtype == np.float16
        assert hidden.shape == (len(BACKGROUNDS[split]), config.num_hidden_layers + 1, config.hidden_size)
        assert (hidden[0, 0] == hidden[1, 0]).all()  # the prompt's last token is the same for all
        assert (hidden[0, -1] != hidden[1, -1]).any()


def test_the_other_picture_has_the_same_background_and_is_never_the_own_one() -> None:
    groups = ["a", "b", "a", "c", "b", "a", "a", "b"]
    others = other_rows(groups)
    assert others[3] is None
    for number, other in enumerate(others):
        if other is not None:
            assert other != number and groups[other] == groups[number]
    for group in "ab":  # each picture of a group stands in once
        members = [number for number, name in enumerate(groups) if name == group]
        assert sorted(others[number] for number in members) == members


def test_a_checkpoint_of_an_earlier_epoch_answers_about_validation_scenes(
    answerer: Answerer, params: Params, tmp_path: Path
) -> None:
    answer_scenes(answerer, params, tmp_path, "x", "validation")
    ids = {answer.id for answer in read_answers(tmp_path) if answer.split != "fixed"}
    assert ids == {f"validation-{number}" for number in range(3)} == {losses.id for losses in read_losses(tmp_path)}
    assert not list(tmp_path.glob("hidden-*"))
