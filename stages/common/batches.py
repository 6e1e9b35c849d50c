"""Batches by token budget, samples of like length together, so that little is spent on padding; or by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_WINDOW = 4096  # samples that are sorted together; wide enough for even lengths, narrow enough to stay random


@dataclass(frozen=True)
class BatchPlan:
    """Every batch of a training run, in order, as a torch batch sampler.

    ``epoch_starts`` holds the index of each epoch's first batch. The whole plan is fixed by its arguments, so a
    resumed run continues with the very batch that an undisturbed one would have seen next.
    """

    batches: list[list[int]]
    epoch_starts: list[int]

    batch_size = None  # accelerate asks a batch sampler for these two
    drop_last = False

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def epoch_at(self, step: int) -> float:
        """Epochs done after ``step`` batches, e.g. 1.25."""
        bounds = [*self.epoch_starts, len(self.batches)]
        epoch = max(i for i, start in enumerate(self.epoch_starts) if start <= step)
        return epoch + (step - bounds[epoch]) / max(1, bounds[epoch + 1] - bounds[epoch])


def plan_batches(
    lengths: Sequence[int], budget: int | None, size: int | None, epochs: int, shuffle: bool, seed: int
) -> BatchPlan:
    """Group samples into batches of ``size``, or whose padded size, rows x longest, stays within ``budget`` tokens.

    With ``shuffle`` every epoch has an order of its own; without, each epoch walks through the data in the order
    of the file, and batches are cut where the budget or the number ends.
    """
    sizes = np.asarray(lengths)
    batches: list[list[int]] = []
    starts: list[int] = []
    for epoch in range(epochs):
        starts.append(len(batches))
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(sizes)) if shuffle else np.arange(len(sizes))
        if size is not None:
            batches += [order[start : start + size].tolist() for start in range(0, len(order), size)]
            continue
        if not shuffle:
            batches += _cut(order.tolist(), sizes, budget)
            continue
        cut: list[list[int]] = []
        for start in range(0, len(order), _WINDOW):
            window = order[start : start + _WINDOW]
            cut += _cut(window[np.argsort(sizes[window], kind="stable")].tolist(), sizes, budget)
        batches += [cut[i] for i in rng.permutation(len(cut))]
    return BatchPlan(batches, starts)


def _cut(order: Sequence[int], sizes: np.ndarray, budget: int) -> list[list[int]]:
    batches: list[list[int]] = []
    batch: list[int] = []
    longest = 0
    for index in order:
        longest = max(longest, int(sizes[index]))
        if batch and longest * (len(batch) + 1) > budget:
            batches.append(batch)
            batch, longest = [], int(sizes[index])
        batch.append(index)
    return [*batches, batch] if batch else batches
