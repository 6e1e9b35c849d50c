"""What the page states about the use of the picture: two-alternative accuracy, then gaps, then the probe."""

from __future__ import annotations

import pytest

from stages.report.findings import findings
from stages.report.picture_use import picture_use
from stages.report.run.load_run import Run, load_run
from stages.report.statements import Finding

NAMES = ("pretrain", "sft-short", "sft-long", "sft-direct")
PHASES = NAMES[1:]
USUAL = {"two_alternative": 0.8, "swap_gap_object": 1.0, "blind_gap_object": 2.0, "probe_auc": 0.9}


def run_of(inputs) -> Run:
    return load_run(inputs.params, inputs.root)


def finding(inputs, **figures: dict[str, float | None]) -> Finding | None:
    """``figures``: {checkpoint: value} by key; other checkpoints have the usual value."""
    for name in NAMES:
        inputs.write_metrics(name, {key: (values.get(name, USUAL[key]), 0.02) for key, values in figures.items()})
    return picture_use(run_of(inputs))


@pytest.mark.parametrize(
    ("accuracy", "headline", "text"),
    [
        (dict.fromkeys(PHASES, 0.9), "is higher after every phase than after pretraining", "higher after every phase."),
        (dict.fromkeys(PHASES, 0.6), "is lower after every phase than after pretraining", "lower after every phase."),
        ({}, "No clear difference in this run", "no clear difference after every phase."),
        (
            {"sft-long": 0.6, "sft-short": 0.9},
            "is lower after sft-long and higher after sft-short than after pretraining",
            "higher after sft-short; lower after sft-long; no clear difference after sft-direct.",
        ),
        (
            {"sft-direct": None},
            "No clear difference in this run",
            "no clear difference after sft-short and sft-long; undefined after sft-direct.",
        ),
        ({"pretrain": None}, "Undefined in this run", "undefined after every phase."),
    ],
)
def test_two_alternative_accuracy_comes_first(inputs, accuracy, headline, text):
    found = finding(inputs, two_alternative=accuracy)
    assert headline in found.headline
    assert found.statements[0].text.endswith(text)
    assert [row.checkpoint for row in found.statements[0].rows] == [*NAMES]


def test_other_measures_add_what_is_lower(inputs):
    found = finding(
        inputs,
        two_alternative=dict.fromkeys(PHASES, 0.9),
        swap_gap_object=dict.fromkeys(PHASES, 1.5),
        blind_gap_object={"sft-short": 1.0},
        probe_auc={"sft-long": 0.7},
    )
    assert found.headline == (
        "In this run, two-alternative accuracy is higher after every phase than after pretraining; the blind gap is "
        "lower after sft-short; the probe of the hidden state is lower after sft-long"
    )
    assert len(found.statements) == 4
    assert "also grows with the confidence of the model" in found.method


def test_without_accuracy_the_gap_comes_first(inputs):
    found = finding(inputs, swap_gap_object=dict.fromkeys(PHASES, 1.5), probe_auc={})
    assert found.headline == "In this run, the image-swap gap is higher after every phase than after pretraining"


def test_every_figure_is_compared_with_pretraining(inputs):
    accuracy, probe = finding(inputs, two_alternative={"sft-long": 0.9}, probe_auc={}).statements
    row = accuracy.rows[2]
    assert row.cells[0] == "90.0 [88.0, 92.0]" and row.cells[1].startswith("+10.0 [+")
    assert (row.relation, row.result, row.symbol) == ("higher", "higher", "▲")
    assert probe.rows[0].cells == ("0.900 [0.880, 0.920]", "")  # pretraining itself


def test_without_object_words_all_words_count(inputs):
    for name in NAMES:
        inputs.write_metrics(name, {"swap_gap": (1.0, 0.1), "swap_gap_object": (None, 0.0)})
    assert "of all words" in picture_use(run_of(inputs)).statements[0].text


def test_without_figures_there_is_no_finding(inputs):
    assert picture_use(run_of(inputs)) is None
    assert [found.key for found in findings(run_of(inputs))] == ["training"]
