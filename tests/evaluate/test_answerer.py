"""Answers, losses and hidden states are those of the model, however questions and texts are put together in batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from stages.common.data.chat import IGNORED, IMAGE
from stages.common.data.features import CachedFeatures, MeanPicture
from stages.common.data.packing import PackCollate, SampleDataset
from stages.common.data.samples import Samples
from stages.evaluate.answer.answerer import Answerer, Question
from stages.evaluate.answer.losses import Other, make_reference, target_spans, text_losses

FEATURES = CachedFeatures(np.random.default_rng(0).normal(size=(6, 4, 8)).astype(np.float16))
PROMPTS = (
    IMAGE + "图中有狗吗？",
    IMAGE + "图中有一只红色的猫吗？",
    "狗" + IMAGE,
    "请描述这两张图片。" + IMAGE * 2,
    "没有图片",
    IMAGE + "图中有狗吗？",
)
PICTURES = ((0,), (0,), (1,), (2, 3), (), (4,))
QUESTIONS = [Question(*question) for question in zip(PICTURES, PROMPTS, strict=True)]
ANSWERS = ("a red dog.", "two dogs and a red, red car", "nothing", "dog", "a cat")


@pytest.fixture
def looking(answerer: Answerer) -> Answerer:
    """As they start, weights are too small for a picture to matter."""
    for parameter in answerer.model.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    return answerer


def direct(answerer: Answerer, question: Question) -> dict[str, torch.Tensor]:
    """The model's own inputs for a question."""
    image_id, tokens = answerer.encoder.token_id(IMAGE), answerer.model.config.image_tokens
    ids = [i for t in answerer.encoder.prompt(question.prompt) for i in [t] * (tokens if t == image_id else 1)]
    inputs = {"input_ids": torch.tensor([ids])}
    if question.pictures:
        inputs["patch_features"] = torch.from_numpy(FEATURES[question.pictures])
    return inputs


def one_by_one(answerer: Answerer, question: Question, length: int) -> list[int]:
    """Greedy decoding without a cache."""
    inputs, found = direct(answerer, question), []
    while len(found) < length:
        with torch.inference_mode():
            token = int(answerer.model(**inputs).logits[0, -1].argmax())
        if token == answerer.encoder.end_id:
            break
        found.append(token)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], 1)
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 6])
def test_answers_are_the_most_likely_tokens_whatever_the_batch(looking: Answerer, batch_size: int) -> None:
    model, tokenizer = looking.model, looking._tokenizer
    expected = [one_by_one(looking, question, 12) for question in QUESTIONS]
    again = Answerer(model, tokenizer, batch_size).answer(QUESTIONS, FEATURES, 12, "x")
    assert again == tokenizer.batch_decode(expected, skip_special_tokens=True)
    assert len(set(again)) > 2


def test_answers_that_have_ended_do_not_disturb_others(looking: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that many answers hold closes them, each at another place."""
    long = [one_by_one(looking, question, 12) for question in QUESTIONS]
    end = next(token for token in long[0][2:] if token not in long[0][:2])
    monkeypatch.setattr(looking.encoder, "end_id", end)
    expected = [one_by_one(looking, question, 12) for question in QUESTIONS]
    assert len({len(ids) for ids in expected}) > 1
    answers = Answerer(looking.model, looking._tokenizer, 6)
    monkeypatch.setattr(answers.encoder, "end_id", end)
    assert answers.answer(QUESTIONS, FEATURES, 12, "x") == looking._tokenizer.batch_decode(
        expected, skip_special_tokens=True
    )


def test_answers_are_those_of_transformers_generate(looking: Answerer) -> None:
    for question in QUESTIONS[:3]:
        out = looking.model.generate(
            inputs_embeds=looking.model.embed(**{"patch_features": None} | direct(looking, question)),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=looking.encoder.end_id,
            pad_token_id=looking._tokenizer.pad_token_id,
        )
        text = looking._tokenizer.batch_decode(out, skip_special_tokens=True)
        assert looking.answer([question], FEATURES, 12, "x") == text


def test_a_question_s_length_is_that_of_its_prompt(answerer: Answerer) -> None:
    for question in QUESTIONS:
        assert answerer.length(question) == direct(answerer, question)["input_ids"].shape[1]


def test_hidden_states_equal_a_direct_forward_pass(looking: Answerer) -> None:
    config = looking.model.config.text_config
    for batch_size in (1, 4):
        found = Answerer(looking.model, looking._tokenizer, batch_size).hidden_states(QUESTIONS, FEATURES, "x")
        assert found.shape == (len(QUESTIONS), config.num_hidden_layers + 1, config.hidden_size)
        assert found.dtype == np.float16
        for question, hidden in zip(QUESTIONS, found, strict=True):
            with torch.inference_mode():
                out = looking.model(**direct(looking, question), output_hidden_states=True)
            expected = np.stack([layer[0, -1].numpy() for layer in out.hidden_states])
            assert hidden == pytest.approx(expected, abs=5e-3, rel=2e-3)


def test_losses_are_those_of_the_model(answerer: Answerer) -> None:
    """Whatever the batch: texts are sorted by length and packed."""
    samples = [reference(answerer, number, answer).sample for number, answer in enumerate(ANSWERS)]
    losses = answerer.target_losses(samples, FEATURES, "x")
    dataset = SampleDataset(Samples.of(samples), FEATURES, 4, answerer.encoder.token_id(IMAGE))
    collate = PackCollate(0, None)
    for number, found in enumerate(losses):
        with torch.inference_mode():
            out = answerer.model(
                input_ids=collate([dataset[number]])["input_ids"][:, : dataset.lengths[number]],
                patch_features=torch.from_numpy(FEATURES[[number]]),
            )
            labels = torch.from_numpy(dataset[number]["labels"])[1:]
            each = torch.nn.functional.cross_entropy(out.logits[0, :-1], labels.long(), reduction="none")
        assert found == pytest.approx(each[labels != IGNORED].numpy(), abs=1e-5)


def reference(answerer: Answerer, number: int, answer: str, question: str = IMAGE + "what?"):
    return make_reference(answerer, str(number), "caption", [(question, [answer])], [number] * question.count(IMAGE))


def test_offsets_cover_the_words_of_the_text(answerer: Answerer) -> None:
    turns = [(IMAGE + "a dog?", ["a dog.", "Two 小狗在跑。"]), ("is it red?", ["the red dog"])]
    starts, ends = target_spans(answerer.encoder, turns)
    text = "a dog.Two 小狗在跑。\nthe red dog"
    _, labels = answerer.encoder.dialogue(turns)
    targets = [label for label in labels if label != IGNORED]
    assert len(starts) == len(ends) == len(targets)
    assert starts.dtype == ends.dtype == np.int32
    covered = {place for start, end in zip(starts, ends, strict=True) for place in range(start, end)}
    assert covered == set(range(len(text))) - {text.index("\n")}
    closing = [(s, e) for s, e, t in zip(starts, ends, targets, strict=True) if t == answerer.encoder.end_id]
    assert closing == [(text.index("\n"), text.index("\n")), (len(text), len(text))]
    for word in ("dog", "小狗", "red"):
        place = text.index(word)
        tokens = [t for s, e, t in zip(starts, ends, targets, strict=True) if s < place + len(word) and e > place]
        assert word in answerer._tokenizer.decode(tokens)


def test_losses_with_other_and_blind_pictures(looking: Answerer) -> None:
    references = [reference(looking, number, answer) for number, answer in enumerate(ANSWERS)]
    others = [Other("4", [4]), None, Other("0", [0]), Other("1", [1]), Other("2", [2])]
    blind = MeanPicture(FEATURES[list(range(6))].astype(np.float32).mean(0))
    found = text_losses(looking, references, others, FEATURES, blind, "x")
    assert [row.other_id for row in found] == ["4", "", "0", "1", "2"]
    assert len(found[1].other) == 0
    swapped = reference(looking, 4, ANSWERS[0])
    assert found[0].other == pytest.approx(looking.target_losses([swapped.sample], FEATURES, "x")[0], abs=1e-5)
    assert abs(found[0].other - found[0].own).max() > 0.01
    for row in found:
        assert len(row.own) == len(row.blind) == len(row.starts) == len(row.ends)


def test_blind_losses_do_not_depend_on_the_picture(looking: Answerer) -> None:
    blind = MeanPicture(np.full((4, 8), 0.5, np.float32))
    references = [reference(looking, number, "a red dog.") for number in range(3)]
    found = text_losses(looking, references, [None] * 3, FEATURES, blind, "x")
    assert abs(found[0].own - found[1].own).max() > 0.01
    for row in found[1:]:
        assert row.blind == pytest.approx(found[0].blind, abs=1e-5)


def test_a_model_that_does_not_look_has_the_same_losses_with_any_picture(looking: Answerer) -> None:
    for parameter in looking.model.model.multi_modal_projector.parameters():
        torch.nn.init.zeros_(parameter)
    blind = MeanPicture(np.ones((4, 8), np.float32))
    (row,) = text_losses(looking, [reference(looking, 0, ANSWERS[0])], [Other("1", [1])], FEATURES, blind, "x")
    assert row.own == pytest.approx(row.other, abs=1e-6) and row.own == pytest.approx(row.blind, abs=1e-6)


def test_a_text_beyond_the_decoder_s_positions_is_cut_off(answerer: Answerer) -> None:
    long = reference(answerer, 0, "a dog. " * 200)
    (row,) = text_losses(answerer, [long], [None], FEATURES, MeanPicture(np.zeros((4, 8), np.float32)), "x")
    assert 0 < len(row.own) == len(row.ends) and row.ends[-1] < len(row.text)


class Pixels:
    key = "pixel_values"

    def __getitem__(self, numbers: Sequence[int]) -> np.ndarray:
        return np.stack([np.full((3, 16, 16), number / 6, np.float32) for number in numbers] or [PIXELS])[
            : len(numbers)
        ]


PIXELS = np.zeros((3, 16, 16), np.float32)


def test_losses_with_pixels_in_place_of_cached_features(looking: Answerer) -> None:
    """Texts with a picture, a blind one and none, in one pack."""
    with torch.inference_mode():
        features = looking.model.patch_features(torch.from_numpy(Pixels()[range(6)])).numpy()
    blind = MeanPicture(features.mean(0))
    references = [reference(looking, 1, "a dog"), reference(looking, 2, "a cat", question="what?")]
    pixels = text_losses(looking, references, [None, None], Pixels(), blind, "x")
    cached = text_losses(looking, references, [None, None], CachedFeatures(features), blind, "x")
    for one, other in zip(pixels, cached, strict=True):
        assert one.own == pytest.approx(other.own, abs=1e-4) and one.blind == pytest.approx(other.blind, abs=1e-4)
    (answer,) = looking.answer(QUESTIONS[4:5], Pixels(), 3, "x")
    assert isinstance(answer, str)
