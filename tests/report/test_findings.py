"""Every sentence about a run, on figures made up for it: higher, lower, no clear difference, undefined."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stages.report.comparison import comparisons
from stages.report.figures import relation
from stages.report.findings import Finding, findings, grounding, invention, jump_relation, listing, training_loss, twins
from stages.report.load_run import UNDEFINED, Interval, Run, load_run
from stages.report.loss_diagnostics import Jump, LossDiagnostics

NAMES = ("pretrain", "sft-short", "sft-long", "sft-direct")
PHASES = NAMES[1:]


def run_of(inputs) -> Run:
    return load_run(inputs.params, inputs.root)


def interval(low: float, high: float) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (interval(-0.2, -0.1), "lower"),
        (interval(0.1, 0.2), "higher"),
        (interval(-0.1, 0.2), "unclear"),
        (interval(0.0, 0.2), "unclear"),
        (Interval(value=0.1, low=None, high=None), "undefined"),
        (UNDEFINED, "undefined"),
    ],
)
def test_a_difference_counts_where_its_interval_leaves_out_zero(change, expected):
    assert relation(change) == expected


def test_words_are_listed():
    assert [listing(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


# The curriculum and its control


def test_the_matched_phase_is_compared_with_its_control(inputs):
    (comparison,) = comparisons(run_of(inputs))
    assert comparison.curriculum.chain == ("pretrain", "sft-short", "sft-long")
    assert comparison.control.chain == ("pretrain", "sft-direct")
    assert comparison.curriculum.tokens == 2 * (1003 + 2001)  # one epoch's counts, times epochs
    assert comparison.control.tokens == 2 * 3004
    assert [figure.relation for figure in comparison.figures] == ["lower", "unclear", "unclear"]
    assert [figure.good for figure in comparison.figures] == [True, None, None]


@pytest.mark.parametrize(
    ("control", "headline"),
    [
        (0.20, "Yes, in this run: fewer of the objects named are hallucinated"),
        (0.105, "No clear difference in this run"),
        (0.02, "No, in this run: more of the objects named are hallucinated"),
        (None, "Open: a figure or its interval is undefined"),
    ],
)
def test_the_headline_follows_the_figures(inputs, control, headline):
    inputs.write_metrics("sft-direct", {"chair_i": (control, 0.02)})
    (comparison,) = comparisons(run_of(inputs))
    assert comparison.headline == headline


def test_overlapping_intervals_of_the_same_scenes_may_still_differ(inputs):
    inputs.write_metrics("sft-long", {"chair_i": (0.10, 0.02)})
    inputs.write_metrics("sft-direct", {"chair_i": (0.13, 0.02)})
    (comparison,) = comparisons(run_of(inputs))
    one, other = comparison.figures[0].curriculum, comparison.figures[0].control
    assert one.high > other.low and comparison.figures[0].relation == "lower"


@pytest.mark.parametrize(
    ("control", "aside"),
    [
        (0.60, "With the curriculum, more of the objects in the picture are named."),
        (0.81, ""),
        (0.95, "With the curriculum, fewer of the objects in the picture are named."),
    ],
)
def test_what_is_named_at_all_is_told_beside_it(inputs, control, aside):
    inputs.write_metrics("sft-direct", {"chair_i": (0.2, 0.02), "recall": (control, 0.02)})
    (comparison,) = comparisons(run_of(inputs))
    assert comparison.aside == aside


def test_unequal_budgets_answer_nothing(inputs):
    path = inputs.root / "data/sft/direct/summary.json"
    path.write_text(path.read_text(encoding="utf-8").replace("3004", "6008"), encoding="utf-8")
    (comparison,) = comparisons(run_of(inputs))
    assert comparison.headline.startswith("Open, as the budgets are unequal")
    assert comparison.budget == "The budgets of the two arms differ by 100 %."


# Grounding


def grounded(inputs, gaps: dict[str, float | None], probes: dict[str, float | None] | None = None) -> Finding | None:
    """``gaps``, ``probes``: of each checkpoint; 1 and 0.9 where nothing is said."""
    for name in NAMES:
        figures = {"swap_gap_object": (gaps.get(name, 1.0), 0.02)}
        if probes is not None:
            figures["probe_auc"] = (probes.get(name, 0.9), 0.001)
        inputs.write_metrics(name, figures)
    return grounding(run_of(inputs))


@pytest.mark.parametrize(
    ("gaps", "headline", "claim"),
    [
        (dict.fromkeys(PHASES, 1.5), "No: after fine-tuning the words depend more", "larger after every phase."),
        (dict.fromkeys(PHASES, 0.5), "Yes: after fine-tuning the words depend less", "smaller after every phase."),
        ({}, "No clear difference in how much", "no clear difference after every phase."),
        (
            {"sft-long": 1.5},
            "No sign of it",
            "larger after sft-long; no clear difference after sft-short and sft-direct.",
        ),
        (
            {"sft-long": 0.5, "sft-short": 1.5},
            "In part: after sft-long the words depend less on the picture than before",
            "larger after sft-short; smaller after sft-long; no clear difference after sft-direct.",
        ),
        (
            {"sft-direct": None},
            "No clear difference in how much",
            "no clear difference after sft-short and sft-long; undefined after sft-direct.",
        ),
        ({"pretrain": None}, "Open: the figures are undefined", "undefined after every phase."),
    ],
)
def test_the_gap_tells_whether_words_lost_the_picture(inputs, gaps, headline, claim):
    found = grounded(inputs, gaps)
    assert found.headline.startswith(headline)
    assert found.statements[0].claim.endswith(claim)
    assert [row.checkpoint for row in found.statements[0].rows] == [*NAMES]


@pytest.mark.parametrize(
    ("gaps", "probes", "headline"),
    [
        ({}, {"sft-long": 0.8}, "In part: after sft-long the image tokens tell less of what is there"),
        (
            {"sft-short": 0.5},
            {"sft-long": 0.8},
            "In part: after sft-short the words depend less on the picture than before, and after sft-long the image "
            "tokens tell less of what is there",
        ),
        (dict.fromkeys(PHASES, 1.5), dict.fromkeys(PHASES, 0.95), "No: after fine-tuning the words depend more"),
    ],
)
def test_the_probe_has_a_say_too(inputs, gaps, probes, headline):
    assert grounded(inputs, gaps, probes).headline.startswith(headline)


def test_every_figure_stands_beside_pretrainings(inputs):
    (gap, probe) = grounded(inputs, {"sft-long": 1.5}, {}).statements
    row = gap.rows[2]
    assert row.cells[0] == "1.50 [1.48, 1.52]" and row.cells[1].startswith("+0.50 [+0.4")
    assert (row.relation, row.verdict, row.sign) == ("higher", "higher", "▲")
    assert probe.rows[0].cells == ("0.9000 [0.8990, 0.9010]", "")  # pretraining has nothing to be compared with


def test_without_object_words_all_words_count(inputs):
    for name in NAMES:
        inputs.write_metrics(name, {"swap_gap": (1.0, 0.1), "swap_gap_object": (None, 0.0)})
    assert "all words" in grounding(run_of(inputs)).statements[0].claim


def test_nothing_measured_says_nothing(inputs):
    assert grounding(run_of(inputs)) is None
    assert invention(run_of(inputs)) is None
    assert [finding.key for finding in findings(run_of(inputs))] == ["training"]


# The loss


def told(inputs, stories: dict[str, LossDiagnostics]) -> Finding | None:
    run = run_of(inputs)
    return training_loss(replace(run, diagnostics=stories))


def test_without_a_loss_log_there_is_no_finding(inputs):
    assert told(inputs, {}) is None


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, "higher"), (0.02, "higher"), (0.5, "unclear"), (0.98, "lower"), (1.0, "lower")]
)
def test_a_jump_is_what_hardly_ever_happens_inside_epochs(share, expected):
    assert jump_relation(share, 0.95) == expected


def jump(share: float) -> Jump:
    return Jump(1, 0.1, 0.02, -0.01, 40, share, 4, -0.1)


UP, NOT = jump(0.0), jump(0.5)


@pytest.mark.parametrize(
    ("shuffled", "filed", "headline"),
    [
        (NOT, UP, "The loss jumps up where an epoch ends in the order of the file, and not in a new order"),
        (UP, NOT, "The loss jumps up where an epoch ends in a new order, and not in the order of the file"),
        (UP, UP, "The loss jumps up where an epoch ends, with and without a new order of samples"),
        (NOT, NOT, "No jump up where an epoch ends, in whichever order of samples"),
        (UP, None, "The loss jumps up where an epoch ends, in a new order of samples"),
        (NOT, None, "No jump up where an epoch ends, in a new order of samples"),
        (None, UP, "The loss jumps up where an epoch ends, in the order of the file"),
        (None, NOT, "No jump up where an epoch ends, in the order of the file"),
        (None, None, "Open: no run has two epochs with points enough"),
    ],
)
def test_jumps_are_told_by_the_order_of_samples(inputs, shuffled, filed, headline):
    stories = {"sft-short": LossDiagnostics((shuffled,) if shuffled else (), True)}
    stories["sft-long"] = LossDiagnostics((filed,) if filed else (), False)
    assert told(inputs, stories).headline == headline


def test_the_jump_of_an_unshuffled_phase_comes_from_a_sorted_file(inputs):
    unshuffled = {"sft-long": LossDiagnostics((UP,), False)}
    claim = told(inputs, unshuffled).statements[0].claim
    assert "sorted by kind of text: descriptions first, questions last" in claim
    assert "Without shuffling (sft-long)" in claim and "no measurement of MiniMind-V's own data" in claim
    assert "sorted" not in told(inputs, {"sft-long": LossDiagnostics((UP,), True)}).statements[0].claim


def test_the_same_samples_in_two_orders_decide(inputs):
    inputs.raw["sft"]["phases"]["unshuffled"] = inputs.raw["sft"]["phases"]["short"] | {"shuffle": False}
    assert twins(inputs.params) == [("sft-short", "sft-unshuffled")]
    inputs.raw["sft"]["phases"]["unshuffled"]["max_len"] = 33
    assert twins(inputs.params) == []


def test_other_runs_do_not_blur_what_the_same_samples_say(inputs):
    run = run_of(inputs)
    inputs.raw["sft"]["phases"]["unshuffled"] = inputs.raw["sft"]["phases"]["short"] | {"shuffle": False}
    stories = {"sft-short": LossDiagnostics((NOT,), True), "sft-long": LossDiagnostics((UP,), True)}
    stories["sft-unshuffled"] = LossDiagnostics((UP,), False)
    found = training_loss(replace(run, params=inputs.params, diagnostics=stories))
    assert found.headline == "The loss jumps up where an epoch ends in the order of the file, and not in a new order"
    assert "sft-unshuffled has the samples of sft-short, in the order of the file." in found.statements[0].claim
    assert [row.cells[:2] for row in found.statements[0].rows] == [
        ("shuffled", "+0.100"),
        ("shuffled", "+0.100"),
        ("of the file", "+0.100"),
    ]


# What is hallucinated, and where


def place(at: str, value: float | None) -> dict:
    ends = {"value": value, "low": value and value - 0.02, "high": value and value + 0.02}
    return {"at": at, "texts": 40, "intervals": {"chair_i": ends, "chair_i_here": ends}}


def hallucinated(inputs, arms: dict[str, tuple[float | None, float | None, float | None]]) -> Finding | None:
    """Last sentence, rare kinds and the background's share; beside 0.1 in the first, of frequent ones and expected."""
    for name, (last, rare, home) in arms.items():
        figures = {"hallucinated_at_home": (home, 0.02), "hallucinated_at_home_expected": (0.1, 0.02)}
        series = {
            "sentence": [place("1", 0.1), place("2", last)],
            "frequency": [place("frequent", 0.1), place("rare", rare)],
        }
        inputs.write_metrics(name, figures, series)
    return invention(run_of(inputs))


def both(*values: float | None) -> dict[str, tuple[float | None, ...]]:
    return {"sft-long": values, "sft-direct": values}


@pytest.mark.parametrize(
    ("arms", "headline"),
    [
        (both(0.3, 0.1, 0.1), "More is hallucinated late in the text"),
        (both(0.02, 0.3, 0.1), "More is hallucinated early in the text and of rare kinds of object"),
        (both(0.1, 0.02, 0.3), "More is hallucinated of frequent kinds of object and of what usually goes with the"),
        (both(0.1, 0.1, 0.02), "More is hallucinated of what is foreign to the background than frequency would give"),
        (both(0.1, 0.1, 0.1), "No clear pattern in this run"),
        (both(None, None, None), "Open: the figures are undefined"),
        (
            {"sft-long": (0.3, 0.1, 0.1), "sft-direct": (0.1, 0.1, 0.1)},
            "The arms differ: no pattern holds for each of them",
        ),
    ],
)
def test_the_pattern_is_what_all_arms_share(inputs, arms, headline):
    found = hallucinated(inputs, arms)
    assert found.headline.startswith(headline)
    assert all([row.checkpoint for row in each.rows] == ["sft-long", "sft-direct"] for each in found.statements)


def test_each_arm_is_named_where_they_differ(inputs):
    found = hallucinated(inputs, {"sft-long": (0.3, 0.1, None), "sft-direct": (0.02, 0.1, 0.3)})
    claims = [statement.claim.split(": ")[1] for statement in found.statements]
    assert claims == [
        "more is hallucinated in sft-long; less is hallucinated in sft-direct.",
        "no clear difference in each arm.",
        "more is hallucinated in sft-direct; undefined in sft-long.",
    ]
    assert found.statements[0].rows[0].cells == ("10.0 [8.0, 12.0]", "30.0 [28.0, 32.0]")


def test_without_a_control_the_last_checkpoint_is_told_of(inputs):
    del inputs.raw["sft"]["phases"]["direct"]
    found = hallucinated(inputs, {"sft-long": (0.3, 0.1, 0.1)})
    assert [row.checkpoint for row in found.statements[0].rows] == ["sft-long"]
    assert found.statements[0].claim.endswith("more is hallucinated in sft-long.")


def test_texts_of_one_sentence_have_no_later_ones(inputs):
    for name in ("sft-long", "sft-direct"):
        inputs.write_metrics(name, {"chair_i": (0.1, 0.02)}, {"sentence": [place("1", 0.1)]})
    assert [row.relation for row in invention(run_of(inputs)).statements[0].rows] == ["undefined", "undefined"]
