"""Section sft, with its phases."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from stages.common.config.base import Name, Positive, Section, Share
from stages.common.config.loop import TokenLoopParams
from stages.common.config.phases import PhaseRules


class PhaseParams(Section):
    """One phase; null takes the value of section sft."""

    after: str
    max_len: Positive | None
    fit: Literal["sentence", "filter", "cut"] | None
    target_tokens: Positive | None
    match: Name | None
    shuffle: bool | None


class SftParams(PhaseRules, TokenLoopParams):
    max_len: Positive
    fit: Literal["sentence", "filter", "cut"]
    question_share: Share
    questions: Positive
    phases: dict[Name, PhaseParams]

    @model_validator(mode="after")
    def _tree_of_phases(self) -> SftParams:
        checkpoints = ["pretrain", *(f"sft-{name}" for name in self.phases)]
        for name, phase in self.phases.items():
            if phase.after not in checkpoints:
                raise ValueError(
                    f"phases.{name}.after: no checkpoint is called '{phase.after}'; "
                    f"choose one of {', '.join(checkpoints)}"
                )
            if phase.target_tokens is not None and phase.match is not None:
                raise ValueError(f"phases.{name}: give target_tokens or match, not both; null for both: every answer")
            if phase.match is not None and phase.match not in self.phases:
                raise ValueError(f"phases.{name}.match: no phase is called '{phase.match}'")
        for name in self.phases:
            seen, after = [f"sft-{name}"], self.phases[name].after
            while after != "pretrain":
                if after in seen:
                    raise ValueError(
                        f"phases.{name}.after: the phases form a cycle, {' -> '.join([*seen, after])}; let one of them "
                        "continue from pretrain"
                    )
                seen.append(after)
                after = self.phases[after.removeprefix("sft-")].after
        for name, phase in self.phases.items():
            if phase.match is not None and any(self.phases[link].match is not None for link in self.chain(phase.match)):
                raise ValueError(
                    f"phases.{name}.match: a phase in the chain of '{phase.match}' sets match, too; match a chain in "
                    "which none does"
                )
        return self
