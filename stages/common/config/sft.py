"""Section sft: the tree of phases."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    model_validator,
)

from stages.common.config.base import LONGEST_PROMPT, Name, Positive, Section, Share
from stages.common.config.loop import TokenLoopParams


class PhaseParams(Section):
    after: str
    max_len: Positive | None
    fit: Literal["sentence", "filter", "cut"] | None
    target_tokens: Positive | None
    match: Name | None
    shuffle: bool | None


class SftParams(TokenLoopParams):
    max_len: Positive
    fit: Literal["sentence", "filter", "cut"]
    question_share: Share
    phases: dict[Name, PhaseParams]

    def limit(self, phase: str) -> int:
        """Longest answer, in tokens, that ``phase`` shows."""
        own = self.phases[phase].max_len
        return self.max_len if own is None else own

    def fitted(self, phase: str) -> str:
        """How ``phase`` makes texts fit."""
        return self.phases[phase].fit or self.fit

    def shuffled(self, phase: str) -> bool:
        """Whether ``phase`` draws a new order of samples each epoch."""
        own = self.phases[phase].shuffle
        return self.shuffle if own is None else own

    def chain(self, phase: str) -> list[str]:
        """The phases from pretraining up to and including ``phase``."""
        chain = [phase]
        while (after := self.phases[chain[0]].after) != "pretrain":
            chain.insert(0, after.removeprefix("sft-"))
        return chain

    @property
    def comparisons(self) -> list[tuple[str, str]]:
        """(end of a curriculum, its control): two phases of which one matches the other; the longer chain is the
        curriculum."""
        pairs = [(phase.match, name) for name, phase in self.phases.items() if phase.match is not None]
        return [
            (one, other) if len(self.chain(one)) >= len(self.chain(other)) else (other, one) for one, other in pairs
        ]

    @model_validator(mode="after")
    def _tree_of_phases(self) -> SftParams:
        checkpoints = ["pretrain", *(f"sft-{name}" for name in self.phases)]
        for name, phase in self.phases.items():
            if phase.after not in checkpoints:
                raise ValueError(
                    f"phases.{name}.after: no checkpoint is called '{phase.after}'; "
                    f"choose one of {', '.join(checkpoints)}"
                )
            if self.limit(name) < LONGEST_PROMPT:
                where = f"phases.{name}.max_len" if phase.max_len is not None else "max_len"
                raise ValueError(
                    f"{where}: {self.limit(name)} is shorter than the prompt itself; set it to {LONGEST_PROMPT} or more"
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
                        f"phases.{name}.after: a loop, {' -> '.join([*seen, after])}; one must follow pretrain"
                    )
                seen.append(after)
                after = self.phases[after.removeprefix("sft-")].after
        for name, phase in self.phases.items():
            if phase.match is not None and any(self.phases[link].match is not None for link in self.chain(phase.match)):
                raise ValueError(
                    f"phases.{name}.match: the chain of '{phase.match}' holds a phase that matches another"
                )
        return self
