"""How much a checkpoint's words depend on the picture: the image-swap gap, and a linear probe of its image tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stages.common.data.chat import IGNORED, IMAGE, Encoder, dialogue_text
from stages.common.data.features import Pictures
from stages.common.data.packing import SampleDataset
from stages.common.data.samples import Sample, Samples
from stages.evaluate.answers import Answerer
from stages.evaluate.score.bootstrap import Metric, Sums, divide, ratio

TOKEN_CLASSES = ("object", "colour", "rest")

# Strength of the probe's weight decay, for the sum over kinds. Between a tenth and ten times as much, the area under
# the curve moved by 0.002.
_PROBE_L2 = 0.01
_PROBE_STEPS = 200  # iterations of L-BFGS, at most

Span = tuple[int, int, str]  # characters start:end of a text, and their class


class Classified(NamedTuple):
    """A sample, perhaps cut off, and for each token of the whole the place of its class in TOKEN_CLASSES."""

    sample: Sample
    classes: Sequence[int]


def classify_tokens(
    encoder: Encoder, turns: Sequence[tuple[str, Sequence[str]]], spans_of: Callable[[str], Iterable[Span]]
) -> tuple[list[int], list[int], list[int]]:
    """Ids, labels and classes of a dialogue's tokens; a token that holds part of a word belongs to the word's class."""
    text, targets = dialogue_text(encoder.format, [(question, "".join(answer)) for question, answer in turns])
    character_classes = np.full(len(text) + 1, TOKEN_CLASSES.index("rest"))
    for start, stop in targets:
        for first, last, name in spans_of(text[start:stop]):
            character_classes[start + first : start + last] = TOKEN_CLASSES.index(name)
    ids, labels = encoder.dialogue(turns)
    # The first class in the list wins: an object's name and the mark after it in one token are an object's name.
    classes = [int(min(character_classes[a : max(b, a + 1)])) for a, b in encoder.offsets(text)]
    return ids, labels, classes


def swap_counts(
    answerer: Answerer, texts: Sequence[Classified], pictures: Pictures, label: str
) -> list[dict[str, float]]:
    """What each text adds to the sums of SWAP_METRICS: its loss, in nats, with its own pictures and with others.

    The others are those half-way round the split: no text gets one of its own, nor a neighbour's, which in files may
    be the same picture. Texts without pictures, or all about one, tell nothing.
    """
    numbers = [number for text in texts for number in text.sample[0]]
    place = {number: index for index, number in enumerate(dict.fromkeys(numbers))}
    around = list(place)

    def swapped(sample: Sample) -> Sample:
        others = [around[(place[number] + len(around) // 2) % len(around)] for number in sample[0]]
        return (others, *sample[1:])

    image_tokens, image_id = answerer.model.config.image_tokens, answerer.encoder.token_id(IMAGE)

    def losses(samples: Iterable[Sample], how: str) -> list[np.ndarray]:
        dataset = SampleDataset(Samples.of(samples), pictures, image_tokens, image_id)
        return answerer.target_losses(dataset, f"{label} {how}")

    own = losses((text.sample for text in texts), "loss")
    other = losses((swapped(text.sample) for text in texts), "loss with other pictures")
    rows = []
    for text, right, wrong in zip(texts, own, other, strict=True):
        row = {"targets": len(right), "nats": float(right.sum())}
        if len(text.sample[0]) and len(around) > 1:
            targets = np.asarray(text.sample[2])[1:] != IGNORED
            classes = np.asarray(text.classes)[1 : len(targets) + 1][targets]
            for index, name in enumerate(TOKEN_CLASSES):
                row[f"swap_{name}_targets"] = int((classes == index).sum())
                row[f"swap_{name}_nats"] = float((wrong - right)[classes == index].sum())
        rows.append(row)
    return rows


def _gap(*classes: str) -> Metric:
    def gap(sums: Sums) -> np.ndarray:
        nats, targets = (
            np.sum([sums[f"swap_{name}_{what}"] for name in classes], axis=0) for what in ("nats", "targets")
        )
        return divide(nats, targets)

    return gap


SWAP_METRICS: dict[str, Metric] = {
    "loss": ratio("nats", "targets"),
    "swap_gap": _gap(*TOKEN_CLASSES),
    **{f"swap_gap_{name}": _gap(name) for name in TOKEN_CLASSES},
}


def fit_probe(tokens: Tensor, present: Tensor) -> Callable[[Tensor], Tensor]:
    """A linear probe of what is in a picture: logistic regression of ``present`` [N, K] on image tokens [N, P, D].

    Each kind has a direction; a token's score along it says how much the token looks like that kind, and a picture's
    is the log-mean-exp over its tokens: an object is found wherever it stands. (On the mean of all tokens instead, the
    area under the curve is 0.94 where it is 0.99 this way.) The result maps [M, P, D] to scores [M, K].
    """
    mean, spread = tokens.mean((0, 1)), tokens.std((0, 1)) + 1e-6
    weights = torch.zeros(tokens.shape[-1], present.shape[1], device=tokens.device, requires_grad=True)
    bias = torch.zeros(present.shape[1], device=tokens.device, requires_grad=True)

    def score(seen: Tensor) -> Tensor:
        along = (seen - mean) / spread @ weights
        return along.logsumexp(1) - np.log(along.shape[1]) + bias

    optimizer = torch.optim.LBFGS([weights, bias], max_iter=_PROBE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(score(tokens), present) * present.shape[1]
        loss = loss + _PROBE_L2 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return lambda seen: score(seen).detach()


def area_under_curve(scores: np.ndarray, present: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """ROC AUC, mean over kinds, as a function of how often each of M pictures counts: [R, M] -> [R].

    ``scores`` and ``present`` are [M, K]; of two equal scores each counts half. Kinds that are in all pictures or in
    none are left out.
    """

    def area(weights: np.ndarray) -> np.ndarray:
        areas = np.stack([_area(weights, scores[:, k], present[:, k] > 0) for k in range(scores.shape[1])])
        with np.errstate(invalid="ignore"):
            known = ~np.isnan(areas)
            return divide(np.where(known, areas, 0).sum(0), known.sum(0))

    return area


def _area(weights: np.ndarray, scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    values, rank = np.unique(scores, return_inverse=True)
    at = np.eye(len(values))[rank]  # [M, ranks]
    there, absent = (weights * present) @ at, (weights * ~present) @ at  # [R, ranks]
    below = absent.cumsum(1) - absent / 2
    return divide((there * below).sum(1), there.sum(1) * absent.sum(1))
