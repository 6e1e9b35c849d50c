"""Overlap with reference texts, and how varied texts are."""

from __future__ import annotations

import math

import pytest

from stages.evaluate.score.overlap import distinct, overlap_estimates


def value(name: str, texts: list[str], references: list[list[str]]) -> float:
    return overlap_estimates(texts, references)[name].value


def test_bleu_by_hand() -> None:
    """Characters are the tokens; all n-grams match, and the text has 4 of 6 characters: exp(1 - 6 / 4)."""
    assert value("bleu", ["甲乙丙丁"], [["甲乙丙丁戊己"]]) == pytest.approx(math.exp(-0.5))


def test_a_copy_of_any_reference_has_full_overlap() -> None:
    for name in ("bleu", "chrf"):
        assert value(name, ["甲乙丙丁戊己"], [["庚辛壬癸子丑", "甲乙丙丁戊己"]]) == pytest.approx(1)
        # Texts may have different numbers of references.
        assert value(name, ["甲乙丙丁戊己"] * 2, [["甲乙丙丁戊己"], ["庚辛", "甲乙丙丁戊己"]]) == pytest.approx(1)


def test_texts_without_overlap_score_nothing() -> None:
    for name in ("bleu", "chrf"):
        assert value(name, ["", "戊"], [["甲乙"], ["丙丁"]]) == pytest.approx(0)


def test_overlap_has_no_interval() -> None:
    for estimate in overlap_estimates(["甲乙"], [["甲乙"]]).values():
        assert math.isnan(estimate.low) and math.isnan(estimate.high) and not len(estimate.resampled)
    assert {name: estimate.row()["value"] for name, estimate in overlap_estimates([], []).items()} == {
        "bleu": None,
        "chrf": None,
    }


def test_distinct_by_hand() -> None:
    assert distinct(["甲乙甲", "乙"], 1) == 2 / 4
    assert distinct(["甲乙甲", "乙"], 2) == 2 / 2
    assert distinct(["甲 乙\n甲", "乙"], 2) == 2 / 2
    assert math.isnan(distinct(["甲"], 2))
