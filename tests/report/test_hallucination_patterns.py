"""What the page states about CHAIR-i by frequency and background."""

from __future__ import annotations

import pytest

from stages.report.hallucination_patterns import hallucination_patterns
from stages.report.run.load_run import Run, load_run
from stages.report.statements import Finding

FREQUENT = "CHAIR-i is lower for rare kinds of object than for frequent ones"


def run_of(inputs) -> Run:
    return load_run(inputs.params, inputs.root)


def point(at: str, value: float | None) -> dict:
    ends = {"value": value, "low": value and value - 0.02, "high": value and value + 0.02}
    return {"at": at, "texts": 40, "intervals": {"chair_i": ends}}


def finding(inputs, arms: dict[str, tuple[float | None, float | None]]) -> Finding | None:
    """``arms``: figures of rare kinds and of the background; each is compared with 0.1."""
    for name, (rare, observed) in arms.items():
        key = "wrong_on_favoured_background"
        figures = {key: (observed, 0.02), f"{key}_expected": (0.1, 0.02)}
        inputs.write_metrics(name, figures, {"frequency": [point("frequent", 0.1), point("rare", rare)]})
    return hallucination_patterns(run_of(inputs))


def both(*values: float | None) -> dict[str, tuple[float | None, ...]]:
    return {"sft-long": values, "sft-direct": values}


@pytest.mark.parametrize(
    ("arms", "headline"),
    [
        (both(0.3, 0.1), "In this run, CHAIR-i is higher for rare kinds of object"),
        (both(0.02, 0.3), f"In this run, {FREQUENT} and wrong mentions fit the background more often"),
        (both(0.1, 0.02), "In this run, wrong mentions fit the background less often"),
        (both(0.1, 0.1), "No clear pattern in this run"),
        (both(None, None), "Undefined in this run"),
        (
            {"sft-long": (0.3, 0.1), "sft-direct": (0.1, 0.1)},
            "In this run, the arms differ: no pattern holds for all of them",
        ),
    ],
)
def test_the_pattern_is_what_all_arms_share(inputs, arms, headline):
    found = finding(inputs, arms)
    assert found.headline.startswith(headline)
    assert all([row.checkpoint for row in each.rows] == ["sft-long", "sft-direct"] for each in found.statements)


def test_each_arm_is_named_where_they_differ(inputs):
    found = finding(inputs, {"sft-long": (0.3, None), "sft-direct": (0.02, 0.3)})
    claims = [statement.text.split(": ")[1] for statement in found.statements]
    assert claims == ["higher in sft-long; lower in sft-direct.", "higher in sft-direct; undefined in sft-long."]
    assert found.statements[0].rows[0].cells == ("10.0 [8.0, 12.0]", "30.0 [28.0, 32.0]")


def test_without_a_control_the_last_checkpoint_is_shown(inputs):
    del inputs.raw["sft"]["phases"]["direct"]
    found = finding(inputs, {"sft-long": (0.3, 0.1)})
    assert [row.checkpoint for row in found.statements[0].rows] == ["sft-long"]
    assert found.statements[0].text.endswith("higher in sft-long.")


def test_a_series_of_one_point_has_no_difference(inputs):
    for name in ("sft-long", "sft-direct"):
        inputs.write_metrics(name, {"chair_i": (0.1, 0.02)}, {"frequency": [point("frequent", 0.1)]})
    rows = hallucination_patterns(run_of(inputs)).statements[0].rows
    assert [row.relation for row in rows] == ["undefined", "undefined"]
