"""What follows from section sft for each of its phases: these rules decide outputs of stages curriculum and sft."""

from __future__ import annotations


class PhaseRules:
    """Mixed into SftParams, which has ``phases``, ``max_len``, ``fit`` and ``shuffle``."""

    def max_len_of(self, phase: str) -> int:
        """The length limit of ``phase``, in tokens: of an answer, or, where its fit is cut, of the whole sequence."""
        own = self.phases[phase].max_len
        return self.max_len if own is None else own

    def fit_of(self, phase: str) -> str:
        """How ``phase`` makes texts fit: sentence, filter or cut."""
        return self.phases[phase].fit or self.fit

    def shuffle_of(self, phase: str) -> bool:
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
        """(last phase of a curriculum, its control) for every phase that matches another; the longer chain is the
        curriculum."""
        pairs = [(phase.match, name) for name, phase in self.phases.items() if phase.match is not None]
        return [
            (one, other) if len(self.chain(one)) >= len(self.chain(other)) else (other, one) for one, other in pairs
        ]
