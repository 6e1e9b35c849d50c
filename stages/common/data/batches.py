"""Batches by token budget, of samples of like length; or by number of samples."""

from __future__ import annotations

from bisect import bisect_right
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

    def part(self, lengths: Sequence[int], process: int, processes: int) -> BatchPlan:
        """What one of several processes takes of every batch: samples of about as many tokens as each other's.

        A batch that has too few samples for all gives its first one again, as -1 - i: to be shown, not to be learnt.
        """
        parts = [_share(batch, lengths, processes)[process] or [-1 - batch[0]] for batch in self.batches]
        return BatchPlan(parts, self.epoch_starts)

    def epoch_at(self, step: int) -> float:
        """Epochs done after ``step`` batches, e.g. 1.25."""
        bounds = [*self.epoch_starts, len(self.batches)]
        epoch = max(i for i, start in enumerate(self.epoch_starts) if start <= step)
        return epoch + (step - bounds[epoch]) / max(1, bounds[epoch + 1] - bounds[epoch])


def plan_batches(
    lengths: Sequence[int], budget: int | None, size: int | None, epochs: int, shuffle: bool, seed: int
) -> BatchPlan:
    """Group samples into batches of ``size``, or of at most ``budget`` tokens (a longer sample is one of its own).

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
        elif not shuffle:
            batches += _cut(order.tolist(), sizes, budget)
        else:
            windows = (order[start : start + _WINDOW] for start in range(0, len(order), _WINDOW))
            filled = [batch for window in windows for batch in _fill(window, sizes, budget)]
            batches += [filled[i] for i in rng.permutation(len(filled))]
    return BatchPlan(batches, starts)


def _cut(order: Sequence[int], sizes: np.ndarray, budget: int) -> list[list[int]]:
    batches: list[list[int]] = []
    room = 0
    for index in order:
        if not batches or sizes[index] > room:
            batches.append([])
            room = budget
        batches[-1].append(index)
        room -= int(sizes[index])
    return batches


def _fill(window: np.ndarray, sizes: np.ndarray, budget: int) -> list[list[int]]:
    """The longest sample that still fits comes next, so that samples of like length come together and the last room is
    filled by a short one."""
    left = window[np.argsort(sizes[window], kind="stable")].tolist()
    lengths = sizes[left].tolist()
    batches: list[list[int]] = []
    room = 0
    while left:
        place = bisect_right(lengths, room) - 1
        if place < 0:
            batches.append([])
            room = max(budget, lengths[-1])
            continue
        batches[-1].append(left.pop(place))
        room -= lengths.pop(place)
    return batches


def _share(batch: Sequence[int], lengths: Sequence[int], parts: int) -> list[list[int]]:
    """The longest samples first, each to the part that has least yet."""
    shares: list[list[int]] = [[] for _ in range(parts)]
    totals = [0] * parts
    for index in sorted(batch, key=lambda index: -lengths[index]):
        least = totals.index(min(totals))
        shares[least].append(index)
        totals[least] += lengths[index]
    return shares
