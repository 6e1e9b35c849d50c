"""The comparison of curriculum and control: which arms, and what the headline states."""

from __future__ import annotations

import pytest

from stages.report.comparison import comparisons
from stages.report.run.load_run import Run, load_run


def run_of(inputs) -> Run:
    return load_run(inputs.params, inputs.root)


def test_the_matched_phase_is_compared_with_its_control(inputs):
    (comparison,) = comparisons(run_of(inputs))
    assert comparison.curriculum.chain == ("pretrain", "sft-short", "sft-long")
    assert comparison.control.chain == ("pretrain", "sft-direct")
    assert comparison.curriculum.tokens == 2 * (1003 + 2001)  # one epoch's counts, times epochs
    assert comparison.control.tokens == 2 * 3004
    assert [figure.relation for figure in comparison.figures] == ["lower", "unclear", "unclear"]
    assert [figure.better for figure in comparison.figures] == [True, None, None]


@pytest.mark.parametrize(
    ("control", "headline"),
    [
        (0.20, "In this run, CHAIR-i is lower with the curriculum: −10.0 points [−1"),
        (0.105, "No clear difference in this run: −0.5 points [−"),
        (0.02, "In this run, CHAIR-i is higher with the curriculum: +8.0 points [+"),
        (None, "Cannot be compared in this run: a figure or its interval is undefined"),
    ],
)
def test_the_headline_follows_the_figures(inputs, control, headline):
    inputs.write_metrics("sft-direct", {"chair_i": (control, 0.02)})
    (comparison,) = comparisons(run_of(inputs))
    assert comparison.headline.startswith(headline)


def test_overlapping_intervals_of_the_same_scenes_may_still_differ(inputs):
    inputs.write_metrics("sft-long", {"chair_i": (0.10, 0.02)})
    inputs.write_metrics("sft-direct", {"chair_i": (0.13, 0.02)})
    (comparison,) = comparisons(run_of(inputs))
    one, other = comparison.figures[0].curriculum, comparison.figures[0].control
    assert one.high > other.low and comparison.figures[0].relation == "lower"


@pytest.mark.parametrize(
    ("control", "sentence"),
    [
        (0.60, "Recall is higher with the curriculum: +20.0 points [+"),
        (0.81, ""),
        (0.95, "Recall is lower with the curriculum: −15.0 points [−"),
    ],
)
def test_recall_is_reported_beside_chair_i(inputs, control, sentence):
    inputs.write_metrics("sft-direct", {"chair_i": (0.2, 0.02), "recall": (control, 0.02)})
    (comparison,) = comparisons(run_of(inputs))
    assert comparison.recall_sentence.startswith(sentence) and bool(comparison.recall_sentence) == bool(sentence)


def test_unequal_budgets_are_stated(inputs):
    path = inputs.root / "data/sft/direct/summary.json"
    path.write_text(path.read_text(encoding="utf-8").replace("3004", "6008"), encoding="utf-8")
    (comparison,) = comparisons(run_of(inputs))
    assert comparison.headline.startswith("In this run, with unequal budgets, CHAIR-i is lower")
    assert comparison.budget == "The budgets of the two arms differ by 100 %."


def test_no_sentence_answers_the_research_question(inputs):
    for control in (0.02, 0.105, 0.20, None):
        inputs.write_metrics("sft-direct", {"chair_i": (control, 0.02), "recall": (0.6, 0.02)})
        (comparison,) = comparisons(run_of(inputs))
        assert "in this run" in comparison.headline.lower()
        assert not comparison.headline.startswith(("Yes", "No,", "No:"))
