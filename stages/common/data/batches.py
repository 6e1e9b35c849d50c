"""Batches of samples of similar length within a token budget, or of a fixed number of samples."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_WINDOW = 4096  # samples sorted by length together; more: more similar lengths in a batch, fewer: a more random order


@dataclass(frozen=True)
class BatchPlan:
    """All batches of a training run, in order, as a torch batch sampler.

    ``batches`` hold sample indices, ``epoch_starts`` the index of each epoch's first batch. The plan is a function of
    the arguments of ``plan_batches``, so a resumed run continues with the same batch as an uninterrupted one.
    """

    batches: list[list[int]]
    epoch_starts: list[int]

    batch_size = None  # accelerate reads these two attributes of a batch sampler
    drop_last = False

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def part(self, lengths: Sequence[int], process: int, processes: int) -> BatchPlan:
        """The plan of one of several processes, which split every batch into parts of about equal numbers of tokens.

        A part that would be empty holds the batch's first sample i as -1 - i, which SampleDataset returns without
        targets.
        """
        parts = [_split(batch, lengths, processes)[process] or [-1 - batch[0]] for batch in self.batches]
        return BatchPlan(parts, self.epoch_starts)

    @property
    def epoch_ends(self) -> list[int]:
        """The number of batches up to the end of each epoch."""
        return [*self.epoch_starts[1:], len(self.batches)]

    def epoch_at(self, step: int) -> float:
        """The number of epochs completed after ``step`` batches, e.g. 1.25."""
        bounds = [*self.epoch_starts, len(self.batches)]
        epoch = max(i for i, start in enumerate(self.epoch_starts) if start <= step)
        return epoch + (step - bounds[epoch]) / max(1, bounds[epoch + 1] - bounds[epoch])


def plan_batches(
    lengths: Sequence[int], budget: int | None, size: int | None, epochs: int, shuffle: bool, seed: int
) -> BatchPlan:
    """Batches of ``size`` samples or, if that is None, of at most ``budget`` tokens (a longer sample is one batch).

    ``lengths`` are in tokens. With ``shuffle`` every epoch has a new random order; without, every epoch has the order
    of the file, and a batch ends before the sample that exceeds the budget.
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
        elif not shuffle:
            batches += _in_order(order.tolist(), sizes, budget)
        else:
            windows = (order[start : start + _WINDOW] for start in range(0, len(order), _WINDOW))
            packed = [batch for window in windows for batch in _by_length(window, sizes, budget)]
            batches += [packed[i] for i in rng.permutation(len(packed))]
    return BatchPlan(batches, starts)


def plan_validation(lengths: Sequence[int], budget: int | None, size: int | None, samples: int, seed: int) -> BatchPlan:
    """One pass over ``samples`` random ones, or all there are; else as ``plan_batches``."""
    sizes = np.asarray(lengths)
    kept = np.random.default_rng(seed).permutation(len(sizes))[:samples]
    plan = plan_batches(sizes[kept], budget, size, 1, True, seed)
    return BatchPlan([kept[batch].tolist() for batch in plan.batches], plan.epoch_starts)


def _in_order(order: Sequence[int], sizes: np.ndarray, budget: int) -> list[list[int]]:
    """Consecutive batches of at most ``budget`` tokens."""
    batches: list[list[int]] = []
    remaining = 0
    for index in order:
        if not batches or sizes[index] > remaining:
            batches.append([])
            remaining = budget
        batches[-1].append(index)
        remaining -= int(sizes[index])
    return batches


def _by_length(window: np.ndarray, sizes: np.ndarray, budget: int) -> list[list[int]]:
    """Batches of at most ``budget`` tokens: each repeatedly takes the longest sample that still fits, so samples of
    similar length come together and a short one fills the remaining tokens."""
    left = window[np.argsort(sizes[window], kind="stable")].tolist()
    lengths = sizes[left].tolist()
    batches: list[list[int]] = []
    remaining = 0
    while left:
        index = bisect_right(lengths, remaining) - 1
        if index < 0:
            batches.append([])
            remaining = max(budget, lengths[-1])
            continue
        batches[-1].append(left.pop(index))
        remaining -= lengths.pop(index)
    return batches


def _split(batch: Sequence[int], lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Splits a batch greedily: samples from the longest to the shortest, each to the part with the fewest tokens."""
    split: list[list[int]] = [[] for _ in range(parts)]
    totals = [0] * parts
    for index in sorted(batch, key=lambda index: -lengths[index]):
        least = totals.index(min(totals))
        split[least].append(index)
        totals[least] += lengths[index]
    return split
