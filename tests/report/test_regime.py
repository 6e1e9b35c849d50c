"""Does plain fine-tuning hallucinate in a run: its conditions, and what the page states."""

from __future__ import annotations

import re

import pytest

from stages.evaluate.score.depth import DEPTH_METRICS, REFERENCE_METRICS
from stages.evaluate.score.losses import ALTERNATIVE_METRICS
from stages.evaluate.score.texts import TEXT_METRICS
from stages.report.knob_runs import COLUMNS
from stages.report.page import render_page
from stages.report.regime_runs import TEXTS
from stages.report.regime_section import regime_section, verdict_sentence
from stages.report.run.load_run import Run, load_run
from stages.report.run.metric_specs import BY_KEY
from stages.report.run.regime import CONDITIONS, GROUNDED_CONDITIONS, judge

PRETRAIN = {
    "caption_unsupported": 0.4,
    "caption_precision": 0.8,
    "caption_length": 20.0,
    "unsupported": 1.2,
    "unsupported_opening": 0.9,
    "chair_i_opening": 0.3,
    "precision": 0.6,
    "length": 37.0,
}
DIRECT = {
    "chair_i": 0.35,
    "chair_i_opening": 0.13,
    "chair_i_rest": 0.35,
    "chair_i_rise": 0.22,
    "reference_chair_i_opening": 0.0,
    "reference_chair_i_rest": 0.05,
    "reference_chair_i_rise": 0.05,
    "unsupported": 3.1,
    "unsupported_opening": 0.5,
    "precision": 0.65,
    "two_alternative_near": 0.9,
    "recall_near": 0.75,
    "length": 131.0,
    "length_opening": 41.0,
}


def run_of(inputs, direct: dict[str, float] | None = None, pretrain: dict[str, float] | None = None) -> Run:
    for name, figures in (("pretrain", PRETRAIN | (pretrain or {})), ("sft-direct", DIRECT | (direct or {}))):
        inputs.write_metrics(name, {key: (value, 0.02) for key, value in figures.items()})
    return load_run(inputs.params, inputs.root)


def relations(run: Run) -> dict[str, str]:
    return {each.condition.key: each.relation for each in judge(run)}


def test_all_conditions_hold_where_plain_fine_tuning_has_the_trouble(inputs):
    run = run_of(inputs)
    assert set(relations(run).values()) == {"higher"}
    assert verdict_sentence(run).startswith(
        "In this run, plain SFT (sft-direct) has the trouble that the notes describe"
    )


@pytest.mark.parametrize(
    ("key", "direct", "pretrain"),
    [
        ("rise", {"chair_i_rise": -0.1}, {}),
        ("per_text", {"unsupported": 0.1}, {}),
        ("per_mention", {"precision": 0.95}, {}),
        ("looks", {"two_alternative_near": 0.6}, {}),
        ("near", {"recall_near": 0.4}, {}),
        ("short", {}, {"caption_length": 40.0}),
        ("precise", {}, {"caption_precision": 0.66}),
    ],
)
def test_each_condition_depends_on_its_own_figures(inputs, key, direct, pretrain):
    found = relations(run_of(inputs, direct, pretrain))
    assert found.pop(key) == "lower"
    if key != "precise":  # a low precision of captions is near that of the long texts, too
        assert set(found.values()) == {"higher"}


def test_a_difference_whose_interval_contains_the_limit_cannot_be_told(inputs):
    run = run_of(inputs, {"recall_near": 0.605})
    (near,) = (each for each in judge(run) if each.condition.key == "near")
    assert near.relation == "unclear" and near.change.low < 0 < near.change.value == pytest.approx(0.005)
    section = regime_section(run)
    assert {line.title: line.result for line in section.conditions}[near.condition.title] == "cannot be told"
    assert section.count == "6 of 7 conditions hold."


@pytest.mark.parametrize(
    ("direct", "words"),
    [
        ({"chair_i_rise": 0.0}, "does not have the trouble that the notes describe: a comparison of arms here says"),
        ({"chair_i_rise": 0.06}, "cannot be told from this run"),
        ({"recall_near": 0.4}, "but not under all conditions of the notes"),
    ],
)
def test_the_verdict_follows_the_conditions(inputs, direct, words):
    assert words in verdict_sentence(run_of(inputs, direct))


def test_the_verdict_stands_beside_the_comparison_of_arms(inputs):
    html = render_page(run_of(inputs, {"chair_i_rise": 0.0}))
    comparison = html[html.index('<article class="comparison') :].partition("</article>")[0]
    assert "says nothing about a cure" in comparison


def test_a_run_without_these_figures_says_that_they_were_not_measured(inputs):
    run = load_run(inputs.params, inputs.root)
    assert regime_section(run) is None and judge(run) == []
    html = render_page(run)
    assert "was not measured in this run" in html and 'id="regime"' not in html


def test_a_run_without_a_control_arm_has_no_plain_fine_tuning(inputs):
    run_of(inputs)
    del inputs.raw["sft"]["phases"]["direct"]
    assert judge(load_run(inputs.params, inputs.root)) == []


@pytest.mark.parametrize(
    ("direct", "words"),
    [
        ({"chair_i_opening": 0.5}, "In this run, not only the length hurts"),
        ({}, "In this run, the length hurts: in its first two sentences, sft-direct is better than pretraining."),
        (
            {"chair_i_opening": 0.3},
            "In this run, sft-direct is worse than pretraining, but not clearly so in its first",
        ),
        ({"precision": 0.8}, "In this run, neither training nor length hurts: sft-direct is better than pretraining."),
        ({"precision": 0.8, "chair_i_opening": 0.3}, "In this run, neither training nor length hurts"),
        ({"precision": 0.8, "chair_i_opening": 0.5}, "In this run, training and length cannot be told apart"),
        ({"precision": 0.7}, "In this run, training and length cannot be told apart"),
        ({"precision": 0.7, "chair_i_opening": 0.5}, "In this run, training and length cannot be told apart"),
    ],
)
def test_training_and_length_are_told_apart_at_the_same_prompt(inputs, direct, words):
    run = run_of(inputs, {"precision": 0.6} | direct, {"precision": 0.7})
    ((headline, figures),) = regime_section(run).causes
    assert headline.startswith(words)
    assert figures.startswith("At the same long prompt, ") and "30.0 % of those that pretraining names" in figures
    assert "0.50 absent kinds in 41.0 characters of its first two sentences" in figures
    assert headline in render_page(run)


@pytest.mark.parametrize(
    ("near_first", "far_first", "words"),
    [
        (0.22, -0.2, "In this run, distance counts more than depth in the text."),
        (0.22, 0.2, "In this run, errors grow along the text in either order."),
        (0.22, 0.0, "In this run, depth in the text and distance cannot be told apart."),
        (-0.22, -0.2, "In this run, depth in the text and distance cannot be told apart."),
    ],
)
def test_depth_and_distance_are_told_apart_by_the_order(inputs, near_first, far_first, words):
    run = run_of(inputs, {"chair_i_rise": near_first, "far_first_chair_i_rise": far_first})
    _, (headline, figures) = regime_section(run).causes
    assert headline == words
    assert f"changes by {BY_KEY['chair_i_rise'].change(near_first)}" in figures
    assert headline in render_page(run)


def test_the_figures_of_the_notes_stand_beside_those_of_the_run(inputs):
    (_, notes), (_, own) = regime_section(run_of(inputs)).table
    assert [row.cells[0] for row in notes][:3] == ["26.9", "34.0", "34.7"]
    assert [row.checkpoint for row in own] == ["pretrain", "pretrain", "sft-direct", "sft-direct", "sft-long"]
    whole = own[3].cells
    assert whole[0] == "35.0 [33.0, 37.0]" and whole[1] == "35.0 [33.0, 37.0]"  # of first mentions: 1 - precision
    assert own[2].cells[-1] == "41.0 [41.0, 41.0]" and own[0].cells[1].startswith("20.0")


def levels_of(curve: str) -> tuple[float, float]:
    """Heights in the picture of the first and the last end of the dashed line."""
    (path,) = re.findall(r"<path[^>]*stroke-dasharray[^>]*>", curve)
    points = re.findall(r"[ML]([\d.]+),([\d.]+)", re.search(r'\bd="([^"]+)"', path)[1])
    return float(points[0][1]), float(points[-1][1])


def test_the_curve_has_every_checkpoint_and_the_levels_of_the_training_texts(inputs):
    ends = {"value": 0.2, "low": 0.1, "high": 0.3}
    series = {"sentence": [{"at": str(k), "texts": 9, "intervals": {"chair_i_new": ends}} for k in (1, 2, 3)]}
    run_of(inputs)
    for name, figures in (("pretrain", PRETRAIN), ("sft-direct", DIRECT)):
        inputs.write_metrics(name, {key: (value, 0.02) for key, value in figures.items()}, series)
    curve = regime_section(load_run(inputs.params, inputs.root)).curve["wide"]
    assert "var(--c0)" in curve and "var(--c3)" in curve and "stroke-dasharray" in curve
    opening, rest = levels_of(curve)
    assert rest < opening  # 5 % is above 0 %; y grows downwards
    assert 'fill="var(--c0)" opacity="0.13"' not in curve  # bands of the compared arms alone


def test_conditions_and_titles_are_those_of_the_metrics_that_are_scored():
    scored = TEXT_METRICS | DEPTH_METRICS | REFERENCE_METRICS | ALTERNATIVE_METRICS
    conditions = (*CONDITIONS, *GROUNDED_CONDITIONS)
    sides = [side for each in conditions for side in (each.larger, each.smaller) if not isinstance(side, float)]
    assert {role for role, _ in sides} == {"pretrain", "direct", "long"}
    keys = (
        {metric for _, metric in sides}
        | {column.metric for column in COLUMNS}
        | {key for *_, row in TEXTS for key in row if key}
    )
    assert {key.removeprefix("caption_").removeprefix("far_first_") for key in keys} <= set(scored)
    assert set(scored) <= set(BY_KEY)
