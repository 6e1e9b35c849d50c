"""Texts against reference texts, character by character: BLEU, chrF, CIDEr; and how varied they are: distinct-n.

White space counts for nothing. All but CIDEr's and distinct-n's are functions of sums over texts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from stages.evaluate.score.bootstrap import Metric, Sums, divide, ratio

_BLEU_ORDER = 4
_CHRF_ORDER = 6
_CHRF_BETA = 2  # recall counts this many times as much as precision
_CIDER_ORDER = 4
_CIDER_SIGMA = 6.0  # width of the penalty on a difference in length, characters

Counts = dict[str, float]


def _grams(text: str, order: int) -> Counter[str]:
    return Counter(text[i : i + order] for i in range(len(text) - order + 1))


def _packed(text: str) -> str:
    return "".join(text.split())


def bleu_counts(text: str, references: Sequence[str]) -> Counts:
    """What one text adds to corpus BLEU (Papineni et al. 2002): clipped matches, n-grams, lengths."""
    text, references = _packed(text), [_packed(reference) for reference in references]
    counts: Counts = {"bleu_length": len(text)}
    counts["bleu_reference"] = min(map(len, references), key=lambda length: (abs(length - len(text)), length))
    for order in range(1, _BLEU_ORDER + 1):
        own = _grams(text, order)
        most = Counter[str]()
        for reference in references:
            most |= _grams(reference, order)
        counts[f"bleu_match_{order}"] = (own & most).total()
        counts[f"bleu_grams_{order}"] = own.total()
    return counts


def bleu(sums: Sums) -> np.ndarray:
    """BLEU-4 of the summed counts, unsmoothed: 0 where an order has no match."""
    orders = range(1, _BLEU_ORDER + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = [np.log(divide(sums[f"bleu_match_{n}"], sums[f"bleu_grams_{n}"])) for n in orders]
        brevity = np.minimum(0.0, 1 - sums["bleu_reference"] / sums["bleu_length"])
        score = np.exp(np.mean(precisions, axis=0) + brevity)
    return np.where(sums["bleu_reference"] > 0, np.nan_to_num(score), np.nan)


def chrf_counts(text: str, references: Sequence[str]) -> Counts:
    """What one text adds to corpus chrF (Popović 2015), with the reference that it is closest to."""
    text = _packed(text)
    return max((_chrf_counts(text, _packed(reference)) for reference in references), key=_chrf_of_one)


def _chrf_counts(text: str, reference: str) -> Counts:
    counts: Counts = {}
    for order in range(1, _CHRF_ORDER + 1):
        own, wanted = _grams(text, order), _grams(reference, order)
        # An order that only one of the two is long enough for says nothing about this text.
        counts[f"chrf_own_{order}"] = own.total() if wanted else 0
        counts[f"chrf_wanted_{order}"] = wanted.total()
        counts[f"chrf_match_{order}"] = (own & wanted).total()
    return counts


def _chrf_of_one(counts: Counts) -> float:
    return float(np.nan_to_num(chrf({name: np.array([value]) for name, value in counts.items()})[0]))


def chrf(sums: Sums) -> np.ndarray:
    """F-score of character n-grams, precision and recall averaged over the orders that both sides have."""
    precision, recall, orders = 0.0, 0.0, 0.0
    for n in range(1, _CHRF_ORDER + 1):
        both = (sums[f"chrf_own_{n}"] > 0) & (sums[f"chrf_wanted_{n}"] > 0)
        precision = precision + np.where(both, divide(sums[f"chrf_match_{n}"], sums[f"chrf_own_{n}"]), 0)
        recall = recall + np.where(both, divide(sums[f"chrf_match_{n}"], sums[f"chrf_wanted_{n}"]), 0)
        orders = orders + both
    precision, recall = (np.nan_to_num(divide(total, orders)) for total in (precision, recall))
    score = divide((1 + _CHRF_BETA**2) * precision * recall, _CHRF_BETA**2 * precision + recall)
    return np.where(sums["chrf_wanted_1"] > 0, np.nan_to_num(score), np.nan)


def cider(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D (Vedantam et al. 2015) of each text, 0 to 10; rare n-grams count more, by these references."""
    packed = [[_packed(reference) for reference in scene] for scene in references]
    frequency = Counter(
        gram
        for scene in packed
        for gram in {g for reference in scene for n in range(1, _CIDER_ORDER + 1) for g in _grams(reference, n)}
    )
    scenes = math.log(len(packed)) if packed else 0.0

    def weigh(text: str) -> list[dict[str, float]]:
        return [
            {gram: count * (scenes - math.log(max(1, frequency[gram]))) for gram, count in _grams(text, n).items()}
            for n in range(1, _CIDER_ORDER + 1)
        ]

    scores = []
    for text, wanted in zip(map(_packed, texts), packed, strict=True):
        own = weigh(text)
        each = [_cider_of_pair(own, weigh(reference), len(text) - len(reference)) for reference in wanted]
        scores.append(10 * sum(each) / len(each))
    return scores


def _cider_of_pair(own: Sequence[Mapping[str, float]], wanted: Sequence[Mapping[str, float]], longer: int) -> float:
    # CIDEr's code takes the length for that of the bigrams; the difference of two texts' lengths is the same.
    total = 0.0
    for mine, theirs in zip(own, wanted, strict=True):
        product = sum(min(weight, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, weight in mine.items())
        norm = math.hypot(*mine.values()) * math.hypot(*theirs.values())
        total += product / norm if norm else 0.0
    return total / _CIDER_ORDER * math.exp(-(longer**2) / (2 * _CIDER_SIGMA**2))


def distinct(texts: Sequence[str], order: int) -> float:
    """distinct-n (Li et al. 2016): different n-grams / all n-grams of all texts; NaN where there is none."""
    grams = Counter(chain.from_iterable(_grams(_packed(text), order).elements() for text in texts))
    return len(grams) / grams.total() if grams else math.nan


OVERLAP_METRICS: dict[str, Metric] = {"bleu": bleu, "chrf": chrf, "cider": ratio("cider", "texts")}


def overlap_counts(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[Counts]:
    """What each text adds to the sums of OVERLAP_METRICS."""
    return [
        bleu_counts(text, wanted) | chrf_counts(text, wanted) | {"cider": score, "texts": 1}
        for text, wanted, score in zip(texts, references, cider(texts, references), strict=True)
    ]
