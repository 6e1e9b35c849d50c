"""Hallucination and recall by depth in the text (its first two sentences, the rest) and by distance (near, far).

Hallucination is counted over the first mention of each kind of object: a text can repeat what it has named without
another look at the picture.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from stages.evaluate.score.bootstrap import Metric, Sums, ratio
from stages.evaluate.score.texts import TextScore

OPENING = 2  # sentences
DISTANCES = ("near", "far")
_SENTENCE = re.compile(r"[^。！？!?\n]*[。！？!?\n]+|[^。！？!?\n]+$")

Counts = dict[str, float]


def sentence_ends(text: str) -> list[int]:
    """Where each sentence ends, in characters."""
    return [match.end() for match in _SENTENCE.finditer(text)]


def depth_counts(score: TextScore) -> Counts:
    """What a text adds to the sums of DEPTH_METRICS. A wrong mention is far if its clause says so, since nothing in the
    picture decides it; a missed thing is far if it is drawn far."""
    opening = (sentence_ends(score.text)[:OPENING] or [0])[-1]
    there = score.scene.kinds
    first = score.first_mentions
    counts: Counts = {
        "texts": 1,
        "there": len(there),
        "opening_characters": opening,
        "opening_right": sum(mention.kind in there for mention in first if mention.start < opening),
    }
    groups = {
        "opening": [mention for mention in first if mention.start < opening],
        "rest": [mention for mention in first if mention.start >= opening],
        "near": [mention for mention in first if not mention.far],
        "far": [mention for mention in first if mention.far],
    }
    for name, mentions in groups.items():
        wrong = [mention.kind for mention in mentions if mention.kind not in there]
        misnamed = len(score.misnamed.intersection(wrong))
        counts |= {
            f"{name}_mentions": len(mentions),
            f"{name}_wrong": len(wrong),
            f"{name}_misnamed": misnamed,
            f"{name}_hallucinated": len(wrong) - misnamed,
        }
    return counts | recall_counts(score, score.named)


def recall_counts(score: TextScore, named: set[str]) -> Counts:
    """How many near and far groups there are, and how many of them are in ``named``."""
    counts: Counts = {}
    for distance in DISTANCES:
        kinds = {group.kind for group in score.scene.groups if group.near == (distance == "near")}
        counts |= {f"{distance}_there": len(kinds), f"{distance}_named": len(kinds & named)}
    return counts


def reference_counts(claims: Sequence[Sequence[str]]) -> Counts:
    """What a reference text adds to the sums of REFERENCE_METRICS, from the claims of each sentence."""
    first: dict[str, str] = {}
    wrong: set[str] = set()
    for number, sentence in enumerate(claims):
        for aspect, _, kind in (claim.partition(":") for claim in sentence):
            if aspect == "object":
                first.setdefault(kind, "opening" if number < OPENING else "rest")
            elif aspect == "unsupported":
                wrong.add(kind)
    counts: Counts = {}
    for part in ("opening", "rest"):
        kinds = {kind for kind, where in first.items() if where == part}
        counts |= {f"{part}_mentions": len(kinds), f"{part}_wrong": len(kinds & wrong)}
    return counts


_CHAIR_OPENING, _CHAIR_REST = (ratio(f"{part}_wrong", f"{part}_mentions") for part in ("opening", "rest"))


def _rise(sums: Sums) -> np.ndarray:
    return _CHAIR_REST(sums) - _CHAIR_OPENING(sums)


_ALONG: dict[str, Metric] = {
    "chair_i_opening": _CHAIR_OPENING,
    "chair_i_rest": _CHAIR_REST,
    "chair_i_rise": _rise,
}
RECALL_METRICS: dict[str, Metric] = {
    f"recall_{distance}": ratio(f"{distance}_named", f"{distance}_there") for distance in DISTANCES
}
_WRONG = {"chair_i": "wrong", "misnamed": "misnamed", "hallucinated": "hallucinated"}
DEPTH_METRICS: dict[str, Metric] = {
    **_ALONG,
    "unsupported_opening": ratio("opening_wrong", "texts"),
    "recall_opening": ratio("opening_right", "there"),
    "length_opening": ratio("opening_characters", "texts"),
    **{
        f"{metric}_{distance}": ratio(f"{distance}_{counted}", f"{distance}_mentions")
        for metric, counted in _WRONG.items()
        for distance in DISTANCES
    },
    **RECALL_METRICS,
}
REFERENCE_METRICS: dict[str, Metric] = {f"reference_{name}": metric for name, metric in _ALONG.items()}
