"""How much words depend on pictures: on models and scores for which that is known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from stages.common.data.chat import IGNORED, IMAGE
from stages.common.data.features import CachedFeatures
from stages.common.data.packing import PackCollate, SampleDataset
from stages.common.data.samples import Samples
from stages.evaluate.answers import Answerer
from stages.evaluate.score.bootstrap import Bootstrap
from stages.evaluate.grounding import (
    SWAP_METRICS,
    TOKEN_CLASSES,
    Classified,
    area_under_curve,
    classify_tokens,
    fit_probe,
    swap_counts,
)
from stages.evaluate.scenes import world_spans

OBJECT, COLOUR, REST = range(3)
FEATURES = CachedFeatures(np.random.default_rng(0).normal(size=(6, 4, 8)).astype(np.float16))
ANSWERS = ("a red dog.", "two dogs and a red, red car", "nothing", "dog", "a cat")


def spans_of(text: str) -> list[tuple[int, int, str]]:
    found = [(text.find(word), word, name) for word, name in (("dog", "object"), ("red", "colour"))]
    return [(start, start + len(word), name) for start, word, name in found if start >= 0]


def classified(answerer: Answerer, number: int, answer: str, question: str = IMAGE + "what?") -> Classified:
    ids, labels, classes = classify_tokens(answerer.encoder, [(question, [answer])], spans_of)
    return Classified(([number] * question.count(IMAGE), ids, labels), classes)


@pytest.fixture
def texts(answerer: Answerer) -> list[Classified]:
    return [classified(answerer, number, answer) for number, answer in enumerate(ANSWERS)]


def test_tokens_have_the_class_of_the_words_they_hold(answerer: Answerer) -> None:
    turns = [("a dog?", ["a dog."]), ("is it red?", ["the red dog"])]
    ids, labels, classes = classify_tokens(answerer.encoder, turns, spans_of)
    assert (ids, labels) == answerer.encoder.dialogue(turns)
    offsets = answerer.encoder.offsets("".join(answerer._tokenizer.decode(ids)))
    assert len(ids) == len(classes) == len(offsets)
    words = {
        name: "".join(answerer._tokenizer.decode([i]) for i, c in zip(ids, classes, strict=True) if c == number)
        for number, name in enumerate(TOKEN_CLASSES)
    }
    assert words["object"].replace(" ", "") == "dogdog"  # of the answers, not of the question
    assert words["colour"].replace(" ", "") == "red"


def test_a_text_s_words_count_when_they_are_new() -> None:
    text = "红色的小狗和狗，红色的猫，没有蓝色的猫"
    found = [(text[start:end], name) for start, end, name in world_spans(text)]
    assert sorted(found) == sorted([("小狗", "object"), ("猫", "object"), ("红色", "colour"), ("蓝色", "colour")])
    assert min(start for start, _, name in world_spans(text) if name == "colour") == 0


def test_losses_are_those_of_the_model(answerer: Answerer, texts: list[Classified]) -> None:
    """Whatever the batch: samples are sorted by length and padded."""
    image_id = answerer.encoder.token_id(IMAGE)
    dataset = SampleDataset(Samples.of(text.sample for text in texts), FEATURES, 4, image_id)
    losses = answerer.target_losses(dataset, "x")
    collate = PackCollate(0, None)
    for number, found in enumerate(losses):
        with torch.inference_mode():
            out = answerer.model(**collate([dataset[number]]), num_items_in_batch=1)
            each = torch.nn.functional.cross_entropy(
                out.logits, torch.tensor([i for i in texts[number].sample[2] if i != IGNORED]), reduction="none"
            )
        assert found == pytest.approx(each.numpy(), abs=1e-5)
        assert found.sum() == pytest.approx(float(out.loss), rel=1e-5)


def test_a_model_that_does_not_look_has_no_gap(answerer: Answerer, texts: list[Classified]) -> None:
    for parameter in answerer.model.model.multi_modal_projector.parameters():
        torch.nn.init.zeros_(parameter)
    found = Bootstrap(5, 20, 0.95, 1).of_sums(swap_counts(answerer, texts, FEATURES, "x"), SWAP_METRICS)
    assert found["loss"].value > 1
    for name in ("swap_gap", *(f"swap_gap_{name}" for name in TOKEN_CLASSES)):
        assert found[name].value == pytest.approx(0, abs=1e-6)


def test_the_gap_is_the_difference_of_losses_by_class(answerer: Answerer, texts: list[Classified]) -> None:
    for parameter in answerer.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # as they start, weights are too small for a picture to matter
    found = Bootstrap(5, 20, 0.95, 1).of_sums(swap_counts(answerer, texts, FEATURES, "x"), SWAP_METRICS)
    image_id = answerer.encoder.token_id(IMAGE)
    nats = {shift: [] for shift in (0, 2)}  # five pictures: the others are two further on
    for shift in nats:
        samples = Samples.of(([(n + shift) % 5], *text.sample[1:]) for n, text in enumerate(texts))
        nats[shift] = np.concatenate(answerer.target_losses(SampleDataset(samples, FEATURES, 4, image_id), "x"))
    classes = np.concatenate([np.array(text.classes)[np.array(text.sample[2]) != IGNORED] for text in texts])
    gaps = nats[2] - nats[0]
    assert abs(gaps).max() > 0.01
    assert found["swap_gap"].value == pytest.approx(gaps.mean(), abs=1e-6)
    for number, name in enumerate(TOKEN_CLASSES):
        assert (classes == number).sum() > 1
        assert found[f"swap_gap_{name}"].value == pytest.approx(gaps[classes == number].mean(), abs=1e-6)


def test_texts_without_other_pictures_have_a_loss_and_no_gap(answerer: Answerer) -> None:
    for texts in ([classified(answerer, 3, "a dog")], [classified(answerer, 0, "a dog", "hello")] * 2):
        rows = swap_counts(answerer, texts, FEATURES, "x")
        found = Bootstrap(len(texts), 20, 0.95, 1).of_sums(rows, SWAP_METRICS)
        assert found["loss"].value > 0 and np.isnan(found["swap_gap"].value)


def test_no_text_is_shown_its_own_picture_as_another(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    def note(dataset: SampleDataset, label: str) -> list[np.ndarray]:
        shown.append(dataset._samples)
        return [np.zeros(int((sample[2][1:] != IGNORED).sum())) for sample in dataset._samples]

    monkeypatch.setattr(answerer, "target_losses", note)
    pair = classified(answerer, 0, "a", IMAGE * 2 + "what?")
    texts = [pair._replace(sample=(numbers, *pair.sample[1:])) for numbers in ([0, 1], [2, 3])]
    swap_counts(answerer, [*texts, classified(answerer, 0, "a", "hello")], FEATURES, "x")
    own, other = ([list(pictures) for pictures, *_ in samples] for samples in shown)
    assert own == [[0, 1], [2, 3], []] and other == [[2, 3], [0, 1], []]


def planted(pictures: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [N, 9, 12] of noise; where a kind is present, one of them leans towards that kind's axis."""
    rng = np.random.default_rng(seed)
    present = rng.random((pictures, 3)) < 0.3
    tokens = rng.normal(size=(pictures, 9, 12))
    for picture, kind in zip(*np.nonzero(present), strict=True):
        tokens[picture, rng.integers(9), kind] += 6
    return torch.tensor(tokens, dtype=torch.float32), torch.tensor(present, dtype=torch.float32)


def test_the_probe_finds_what_is_there_wherever_it_stands() -> None:
    tokens, present = planted(200, 1)
    unseen, truth = planted(200, 2)
    probe = fit_probe(tokens, present)
    area = area_under_curve(probe(unseen).numpy(), truth.numpy())(np.ones((1, 200)))
    assert area[0] > 0.97
    noise = torch.randn(2, 200, 9, 12, generator=torch.manual_seed(0))
    guessed = fit_probe(noise[0], present)(noise[1])
    assert area_under_curve(guessed.numpy(), truth.numpy())(np.ones((1, 200)))[0] == pytest.approx(0.5, abs=0.1)


def test_area_under_the_curve_by_pairs() -> None:
    scores = np.array([[0.1, 5], [0.4, 5], [0.4, 1], [0.9, 2]])
    present = np.array([[0, 1], [1, 0], [0, 0], [1, 1]], np.float32)

    def by_pairs(kind: int) -> float:
        wins = [
            (scores[i, kind] > scores[j, kind]) + (scores[i, kind] == scores[j, kind]) / 2
            for i, j in product(range(4), repeat=2)
            if present[i, kind] and not present[j, kind]
        ]
        return float(np.mean(wins))

    area = area_under_curve(scores, present)
    assert by_pairs(0) == 3.5 / 4 and by_pairs(1) == 2.5 / 4
    assert area(np.ones((1, 4)))[0] == pytest.approx((by_pairs(0) + by_pairs(1)) / 2)
    # A picture that counts twice is a picture that is there twice.
    again = [0, 1, 1, 3]
    weights = np.bincount(again, minlength=4)[None].astype(float)
    assert area(weights)[0] == pytest.approx(area_under_curve(scores[again], present[again])(np.ones((1, 4)))[0])


def test_kinds_without_two_sides_are_left_out() -> None:
    scores, present = np.array([[0.1, 0.3], [0.4, 0.2]]), np.array([[0, 1], [1, 1]], np.float32)
    assert area_under_curve(scores, present)(np.ones((1, 2)))[0] == 1.0
    assert np.isnan(area_under_curve(scores[:, 1:], present[:, 1:])(np.ones((1, 2)))[0])
