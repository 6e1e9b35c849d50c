"""Does the curriculum reduce hallucination at equal budget? Each control arm against the end of its curriculum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stages.report.figures import Relation, figure, relation
from stages.report.load_run import PRETRAIN, Checkpoint, Interval, Run, difference
from stages.report.metric_specs import DECIDING, LENGTH, Metric

_EQUAL_BUDGETS = 0.01  # budgets that differ by less than this share count as equal


@dataclass(frozen=True)
class Arm:
    """One side of a comparison. ``tokens``: target tokens of the whole chain after pretraining, all epochs."""

    checkpoint: Checkpoint
    chain: tuple[str, ...]
    tokens: int


class DecidingFigure(NamedTuple):
    """A figure of both arms, and the curriculum's minus the control's."""

    metric: Metric
    curriculum: Interval
    control: Interval
    change: Interval

    @property
    def relation(self) -> Relation:
        return relation(self.change)

    @property
    def verdict(self) -> str:
        if self.relation == "unclear":
            return "no clear difference"
        if self.relation == "undefined":
            return "cannot be compared: a figure or its interval is undefined"
        return f"{self.relation} with the curriculum"

    @property
    def good(self) -> bool | None:
        """Whether the curriculum did better; None where that is open."""
        return None if self.relation in ("unclear", "undefined") else self.relation == self.metric.better


@dataclass(frozen=True)
class Comparison:
    """``figures``: the first one is the share of what is named that is hallucinated."""

    curriculum: Arm
    control: Arm
    figures: tuple[DecidingFigure, ...]

    @property
    def budget_gap(self) -> float:
        """Difference of the two budgets as a share of the curriculum's."""
        return abs(self.control.tokens - self.curriculum.tokens) / max(self.curriculum.tokens, 1)

    @property
    def headline(self) -> str:
        hallucinated = self.figures[0]
        if hallucinated.relation == "undefined":
            return "Open: a figure or its interval is undefined"
        if hallucinated.relation == "unclear":
            return "No clear difference in this run"
        outcome = f"{'fewer' if hallucinated.good else 'more'} of the objects named are hallucinated"
        if self.budget_gap > _EQUAL_BUDGETS:
            return f"Open, as the budgets are unequal: {outcome}"
        return f"{'Yes' if hallucinated.good else 'No'}, in this run: {outcome}"

    @property
    def aside(self) -> str:
        """What else the curriculum changes: who names less has fewer chances to invent."""
        recall = next((item for item in self.figures if item.metric.key.endswith("recall")), None)
        if recall is None or recall.good is None:
            return ""
        return f"With the curriculum, {'more' if recall.good else 'fewer'} of the objects in the picture are named."

    @property
    def budget(self) -> str:
        if self.budget_gap == 0:
            return "The budgets of the two arms are equal."
        gap = 100 * self.budget_gap
        return f"The budgets of the two arms differ by {f'{gap:.1g}' if gap < 1 else f'{gap:.0f}'} %."

    @property
    def lengths(self) -> tuple[str, str] | None:
        """Mean characters of both arms' texts."""
        key = self.figures[0].metric.key.replace("chair_i", LENGTH.key)  # of the same texts
        both = [figure(arm.checkpoint, key).value for arm in (self.curriculum, self.control)]
        return None if None in both else tuple(LENGTH.show(length) for length in both)


def comparisons(run: Run) -> list[Comparison]:
    """Each control arm against the end of its curriculum, by the deciding figures that the run has."""
    deciding = [metric for metric in DECIDING if _reported(run, metric.key)]
    found = []
    for phases in run.params.sft.comparisons if deciding else ():
        curriculum, control = (_arm(run, phase) for phase in phases)
        names = curriculum.checkpoint.name, control.checkpoint.name
        figures = tuple(
            DecidingFigure(
                metric,
                figure(curriculum.checkpoint, metric.key),
                figure(control.checkpoint, metric.key),
                difference(run, *names, metric.key),
            )
            for metric in deciding
        )
        found.append(Comparison(curriculum, control, figures))
    return found


def _reported(run: Run, key: str) -> bool:
    return any(key in checkpoint.evaluation.intervals for checkpoint in run.checkpoints.values())


def _arm(run: Run, phase: str) -> Arm:
    chain = run.params.sft.chain(phase)
    data = [run.checkpoints[f"sft-{link}"].data for link in chain]
    tokens = run.params.sft.epochs * sum(part.target_tokens for part in data if part is not None)
    return Arm(run.checkpoints[f"sft-{phase}"], (PRETRAIN, *(f"sft-{link}" for link in chain)), tokens)
