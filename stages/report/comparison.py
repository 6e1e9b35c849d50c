"""Curriculum and control in this run: each control arm compared with the end of its curriculum.

A single run cannot answer whether a curriculum reduces hallucination; every sentence here is about this run alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stages.report.run.figures import Relation, difference, figure, format_change, relation
from stages.report.run.load_run import PRETRAIN, Checkpoint, Run
from stages.report.run.metric_specs import DECIDING, LENGTH, PHOTOGRAPHS, Metric
from stages.report.run.records import Interval

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
    def result(self) -> str:
        if self.relation == "unclear":
            return "no clear difference"
        if self.relation == "undefined":
            return "undefined"
        return f"{self.relation} with the curriculum"

    @property
    def title(self) -> str:
        """Without the group that the metric belongs to."""
        title = self.metric.title.removeprefix(PHOTOGRAPHS)
        return title[0].upper() + title[1:]

    @property
    def change_text(self) -> str:
        """+2.0 points [+0.2, +3.8]"""
        value, _, ends = format_change(self.metric, self.change).partition(" ")
        return f"{value} {'points' if self.metric.unit == '%' else self.metric.unit} {ends}".strip()

    @property
    def better(self) -> bool | None:
        """Whether the curriculum is better; None if there is no clear difference."""
        return None if self.relation in ("unclear", "undefined") else self.relation == self.metric.better


@dataclass(frozen=True)
class Comparison:
    """``figures``: CHAIR-i comes first."""

    curriculum: Arm
    control: Arm
    figures: tuple[DecidingFigure, ...]

    @property
    def budget_gap(self) -> float:
        """Difference of the two budgets as a share of the curriculum's."""
        return abs(self.control.tokens - self.curriculum.tokens) / max(self.curriculum.tokens, 1)

    @property
    def headline(self) -> str:
        first = self.figures[0]
        if first.relation == "undefined":
            return "Cannot be compared in this run: a figure or its interval is undefined"
        if first.relation == "unclear":
            return f"No clear difference in this run: {first.change_text}"
        outcome = f"{first.title} is {first.relation} with the curriculum: {first.change_text}"
        if self.budget_gap > _EQUAL_BUDGETS:
            return f"In this run, with unequal budgets, {outcome}"
        return f"In this run, {outcome}"

    @property
    def recall_sentence(self) -> str:
        """Recall, to be read together with CHAIR-i: a text that names fewer objects has fewer chances of an error."""
        recall = next((item for item in self.figures if item.metric.key.endswith("recall")), None)
        if recall is None or recall.better is None:
            return ""
        return f"{recall.title} is {recall.relation} with the curriculum: {recall.change_text}."

    @property
    def budget(self) -> str:
        if self.budget_gap == 0:
            return "The budgets of the two arms are equal."
        gap = 100 * self.budget_gap
        return f"The budgets of the two arms differ by {f'{gap:.1g}' if gap < 1 else f'{gap:.0f}'} %."

    @property
    def lengths(self) -> tuple[str, str] | None:
        """Mean characters of the texts of both arms."""
        key = self.figures[0].metric.key.replace("chair_i", LENGTH.key)  # long descriptions, or photographs
        both = [figure(arm.checkpoint, key).value for arm in (self.curriculum, self.control)]
        return None if None in both else tuple(LENGTH.show(length) for length in both)


def comparisons(run: Run) -> list[Comparison]:
    """Each control arm and the end of its curriculum, by the deciding figures that the run has."""
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
