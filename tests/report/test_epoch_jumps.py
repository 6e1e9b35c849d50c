"""What the page states about the loss at the end of epochs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stages.report.epoch_jumps import epoch_jumps, jump_relation, order_pairs
from stages.report.run.load_run import Run, load_run
from stages.report.run.loss_diagnostics import Jump, LossDiagnostics
from stages.report.statements import Finding


def run_of(inputs) -> Run:
    return load_run(inputs.params, inputs.root)


def finding(inputs, diagnostics: dict[str, LossDiagnostics]) -> Finding | None:
    run = run_of(inputs)
    return epoch_jumps(replace(run, diagnostics=diagnostics))


def test_without_a_loss_log_there_is_no_finding(inputs):
    assert finding(inputs, {}) is None


def jump(size: float, positions: int = 40) -> Jump:
    return Jump(epoch=1, size=size, typical=-0.01, typical_sd=0.02, positions=positions, window=4)


@pytest.mark.parametrize(
    ("size", "positions", "expected"),
    [
        (0.1, 40, "higher"),
        (0.02, 40, "unclear"),
        (-0.12, 40, "lower"),
        (0.1, 8, "unclear"),  # too few to say what is typical
    ],
)
def test_a_jump_is_a_change_beyond_those_inside_epochs(size, positions, expected):
    assert jump_relation(jump(size, positions), 0.95) == expected


UP, NOT = jump(0.1), jump(0.0)


@pytest.mark.parametrize(
    ("shuffled", "filed", "headline"),
    [
        (NOT, UP, "In this run, the loss jumps up where an epoch ends without shuffling, but not with it"),
        (UP, NOT, "In this run, the loss jumps up where an epoch ends with shuffling, but not without it"),
        (UP, UP, "In this run, the loss jumps up where an epoch ends, with and without shuffling"),
        (NOT, NOT, "No clear jump in this run where an epoch ends, with or without shuffling"),
        (UP, None, "In this run, the loss jumps up where an epoch ends, with shuffling"),
        (NOT, None, "No clear jump in this run where an epoch ends, with shuffling"),
        (None, UP, "In this run, the loss jumps up where an epoch ends, without shuffling"),
        (None, NOT, "No clear jump in this run where an epoch ends, without shuffling"),
        (None, None, "Not measured in this run: no phase has two epochs with enough logged points"),
    ],
)
def test_the_headline_names_the_order_of_samples(inputs, shuffled, filed, headline):
    diagnostics = {"sft-short": LossDiagnostics((shuffled,) if shuffled else (), True)}
    diagnostics["sft-long"] = LossDiagnostics((filed,) if filed else (), False)
    assert finding(inputs, diagnostics).headline == headline


def test_the_jump_of_an_unshuffled_phase_comes_from_a_sorted_file(inputs):
    unshuffled = {"sft-long": LossDiagnostics((UP,), False)}
    claim = finding(inputs, unshuffled).statements[0].text
    assert "sorted by kind of text: descriptions first, questions last" in claim
    assert "Without shuffling (sft-long)" in claim and "no measurement of MiniMind-V's own data" in claim
    assert "sorted" not in finding(inputs, {"sft-long": LossDiagnostics((UP,), True)}).statements[0].text


def test_phases_that_differ_in_shuffling_alone_are_paired(inputs):
    inputs.raw["sft"]["phases"]["unshuffled"] = inputs.raw["sft"]["phases"]["short"] | {"shuffle": False}
    assert order_pairs(inputs.params) == [("sft-short", "sft-unshuffled")]
    inputs.raw["sft"]["phases"]["unshuffled"]["max_len"] = 33
    assert order_pairs(inputs.params) == []


def test_the_headline_is_about_the_paired_phases(inputs):
    run = run_of(inputs)
    inputs.raw["sft"]["phases"]["unshuffled"] = inputs.raw["sft"]["phases"]["short"] | {"shuffle": False}
    diagnostics = {"sft-short": LossDiagnostics((NOT,), True), "sft-long": LossDiagnostics((UP,), True)}
    diagnostics["sft-unshuffled"] = LossDiagnostics((UP,), False)
    found = epoch_jumps(replace(run, params=inputs.params, diagnostics=diagnostics))
    assert found.headline == "In this run, the loss jumps up where an epoch ends without shuffling, but not with it"
    assert "sft-unshuffled has the samples of sft-short, unshuffled." in found.statements[0].text
    assert [row.cells[:2] for row in found.statements[0].rows] == [
        ("shuffled", "0.000"),
        ("shuffled", "+0.100"),
        ("unshuffled", "+0.100"),
    ]
