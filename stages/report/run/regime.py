"""Does plain fine-tuning have the trouble that the notes describe? The conditions under which it does.

Plain fine-tuning goes from pretraining to texts of full length in one phase: the control arm. The page judges one run
by these conditions, benchmarks/regime.py several seeds.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from stages.report.run.figures import Relation, Side, relation, side_difference, side_figure
from stages.report.run.load_run import PRETRAIN, Run
from stages.report.run.records import Interval

Role = Literal["pretrain", "direct", "long"]  # long: the end of the curriculum
Value = tuple[Role, str] | float  # a metric of a checkpoint, or a limit


class Condition(NamedTuple):
    """Holds where ``larger`` minus ``smaller`` is above zero, with an interval clear of zero."""

    key: str
    title: str
    larger: Value
    smaller: Value


CONDITIONS = (
    Condition(
        "rise",
        "From the first two sentences of its texts to the rest, CHAIR-i rises by more than in the training texts",
        ("direct", "chair_i_rise"),
        ("direct", "reference_chair_i_rise"),
    ),
    Condition(
        "per_text",
        "A long text of plain SFT names more absent kinds than a short caption of pretraining",
        ("direct", "unsupported"),
        ("pretrain", "caption_unsupported"),
    ),
    Condition(
        "per_mention",
        "Of the kinds that it names, a smaller share is in the picture than in those captions",
        ("pretrain", "caption_precision"),
        ("direct", "precision"),
    ),
    Condition(
        "looks",
        "Naming near things, it tells the picture from another one of the same background: two-alternative accuracy "
        "above 80 %",
        ("direct", "two_alternative_near"),
        0.8,
    ),
    Condition("near", "It names more than 60 % of the near things", ("direct", "recall_near"), 0.6),
    Condition(
        "short", "The captions of pretraining have fewer than 30 characters", 30.0, ("pretrain", "caption_length")
    ),
    Condition(
        "precise",
        "More than 70 % of the kinds that these captions name are in the picture",
        ("pretrain", "caption_precision"),
        0.7,
    ),
)

# What the model must learn where it is helped: the regime grounded.
GROUNDED_CONDITIONS = (
    Condition(
        "long_precise",
        "More than 85 % of the kinds that the curriculum's texts name are in the picture",
        ("long", "precision"),
        0.85,
    ),
    Condition("long_near", "They name more than 80 % of the near things", ("long", "recall_near"), 0.8),
)


class Judged(NamedTuple):
    """A condition with its two sides and their difference in one run."""

    condition: Condition
    larger: Interval
    smaller: Interval
    change: Interval

    @property
    def relation(self) -> Relation:
        """Higher: the condition holds. Lower: it does not. Unclear: the interval of the difference contains zero."""
        return relation(self.change)


def direct_checkpoint(run: Run) -> str | None:
    """The checkpoint of the first control arm; None if there is none."""
    return next((f"sft-{control}" for _, control in run.params.sft.comparisons), None)


def judge(run: Run) -> list[Judged]:
    """All conditions in this run; empty if it has no control arm or no pretraining, or none of the figures."""
    direct = direct_checkpoint(run)
    if direct is None or PRETRAIN not in run.checkpoints:
        return []
    names = {"pretrain": PRETRAIN, "direct": direct}

    def side(value: Value) -> Side:
        return value if isinstance(value, float) else (names[value[0]], value[1])

    judged = []
    for condition in CONDITIONS:
        sides = side(condition.larger), side(condition.smaller)
        judged.append(Judged(condition, *(side_figure(run, each) for each in sides), side_difference(run, *sides)))
    return judged if any(each.change.value is not None for each in judged) else []
