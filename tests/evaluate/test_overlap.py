"""Overlap with reference texts: by hand, and against public implementations."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU, CHRF

from stages.evaluate.score.bootstrap import Bootstrap
from stages.evaluate.score.overlap import OVERLAP_METRICS, cider, distinct, overlap_counts

# Twelve captions with what pycocoevalcap 1.2 gives them, characters as its words; among them an empty one, a single
# character, a copy of a reference, one of another scene's.
RECORDED = json.loads((Path(__file__).parent / "fixtures/cider.json").read_text(encoding="utf-8"))
TEXTS = [row["text"] for row in RECORDED]
REFERENCES = [row["references"] for row in RECORDED]


def value(name: str, texts: list[str], references: list[list[str]]) -> float:
    rows = overlap_counts(texts, references)
    return Bootstrap(len(texts), 10, 0.95, 1).of_sums(rows, OVERLAP_METRICS)[name].value


def spaced(texts: list[str]) -> list[str]:
    return [" ".join(text) for text in texts]


def samples() -> list[tuple[list[str], list[list[str]]]]:
    """Corpora of random texts over few characters, so that n-grams of every order match."""
    rng = random.Random(1)

    def text(longest: int = 20) -> str:
        return "".join(rng.choice("甲乙丙丁，") for _ in range(rng.randint(0, longest)))

    corpora = [([text() for _ in range(6)], [[text() or "甲", text() or "乙"] for _ in range(6)]) for _ in range(20)]
    short = [([text(3) for _ in range(4)], [[text(5) or "甲", text(5) or "乙"] for _ in range(4)]) for _ in range(10)]
    return [*corpora, *short, (TEXTS, [[*wanted, wanted[0]][:2] for wanted in REFERENCES])]


@pytest.mark.parametrize(("texts", "references"), samples())
def test_bleu_is_sacrebleu_s(texts: list[str], references: list[list[str]]) -> None:
    theirs = BLEU(tokenize="none", smooth_method="none", effective_order=False)
    expected = theirs.corpus_score(spaced(texts), [spaced(list(one)) for one in zip(*references, strict=True)])
    assert value("bleu", texts, references) == pytest.approx(expected.score / 100, abs=1e-9)


@pytest.mark.parametrize(("texts", "references"), samples())
def test_chrf_is_sacrebleu_s(texts: list[str], references: list[list[str]]) -> None:
    expected = CHRF().corpus_score(texts, [list(one) for one in zip(*references, strict=True)])
    assert value("chrf", texts, references) == pytest.approx(expected.score / 100, abs=1e-9)


def test_cider_is_pycocoevalcap_s() -> None:
    assert cider(TEXTS, REFERENCES) == pytest.approx([row["cider"] for row in RECORDED], abs=2e-6)
    assert max(row["cider"] for row in RECORDED) > 5 and min(row["cider"] for row in RECORDED) == 0


def test_cider_is_pycocoevalcap_s_on_any_text() -> None:
    theirs = pytest.importorskip("pycocoevalcap.cider.cider", reason="pycocoevalcap (100 MB) is not installed").Cider()
    for texts, references in samples():
        wanted = {number: spaced(told) for number, told in enumerate(references)}
        said = {number: [text] for number, text in enumerate(spaced(texts))}
        assert cider(texts, references) == pytest.approx(theirs.compute_score(wanted, said)[1].tolist(), abs=1e-9)


def test_bleu_by_hand() -> None:
    # 5 of 6 characters, 3 of 5 pairs, 1 of 4 triples, 0 of 3 fours: no match in an order is no score.
    assert value("bleu", ["甲乙丙甲丁乙"], [["甲乙丙丁乙"]]) == 0
    # All n-grams match, and the text is 4 characters where the reference has 6: exp(1 - 6 / 4).
    assert value("bleu", ["甲乙丙丁"], [["甲乙丙丁戊己"]]) == pytest.approx(math.exp(-0.5))


def test_white_space_counts_for_nothing() -> None:
    for name in OVERLAP_METRICS:
        one, other = (value(name, [text, "丁丁丁"], [["甲乙丙丁"], ["戊己"]]) for text in ("甲 乙\n丙丁", "甲乙丙丁"))
        assert one == other > 0


def test_empty_texts_score_nothing() -> None:
    for name in OVERLAP_METRICS:
        assert value(name, ["", ""], [["甲乙"], ["丙丁"]]) == 0


def test_distinct_by_hand() -> None:
    assert distinct(["甲乙甲", "乙"], 1) == 2 / 4
    assert distinct(["甲乙甲", "乙"], 2) == 2 / 2
    assert math.isnan(distinct(["甲"], 2))
