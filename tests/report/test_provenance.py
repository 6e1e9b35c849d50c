"""Software and hardware on the page: one line, and the checkpoints that differ."""

from __future__ import annotations

from stages.report.page import render_page
from stages.report.provenance import provenance_text
from stages.report.run.load_run import load_run
from tests.report.conftest import Inputs

NAMES = ("pretrain", "sft-short", "sft-long", "sft-direct")
USUAL = "torch 2.7.1, transformers 4.55.0, Test CPU, fp32, not compiled, 1 process"


def write(inputs: Inputs, **training: dict) -> None:
    """``training``: what differs, by phase."""
    for name in NAMES:
        inputs.write_provenance(name, training.get(name.removeprefix("sft-"), {}))


def test_one_line_where_all_checkpoints_agree(inputs: Inputs) -> None:
    write(inputs)
    run = load_run(inputs.params, inputs.root)
    assert provenance_text(run) == (f"Training and answers: {USUAL}.", ())
    page = render_page(run)
    assert USUAL in page and "not all computed in the same way" not in page


def test_checkpoints_that_differ_are_named(inputs: Inputs) -> None:
    write(inputs, long={"processor": "Test GPU", "precision": "bf16"})
    inputs.write_provenance("sft-direct", {}, compiled=True)
    run = load_run(inputs.params, inputs.root)
    text = provenance_text(run)
    assert text.summary == f"Training and answers: {USUAL}."
    assert text.differences == (
        "sft-long, training: Test GPU instead of Test CPU, bf16 instead of fp32",
        "sft-direct, answers: compiled instead of not compiled",
    )
    assert "were not all computed in the same way" in render_page(run)


def test_training_and_answers_on_different_machines(inputs: Inputs) -> None:
    for name in NAMES:
        inputs.write_provenance(name, {}, processor="Test GPU", processes=2)
    text = provenance_text(load_run(inputs.params, inputs.root))
    answers = "torch 2.7.1, transformers 4.55.0, Test GPU, fp32, not compiled, 2 processes"
    assert text == (f"Training: {USUAL}. Answers: {answers}.", ())


def test_a_checkpoint_without_a_record_is_named(inputs: Inputs) -> None:
    write(inputs)
    inputs.write_provenance("sft-short", None)  # as of an external checkpoint: the answers alone
    (inputs.root / "reports/evaluation/sft-long/provenance.json").unlink()
    assert provenance_text(load_run(inputs.params, inputs.root)).differences == ("sft-long: not recorded",)


def test_runs_without_records_have_no_line(inputs: Inputs) -> None:
    assert provenance_text(load_run(inputs.params, inputs.root)) is None
