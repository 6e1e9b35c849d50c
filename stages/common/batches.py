"""Batches by token budget, filled like bins so that little room is left; or by number of samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_OPEN = 16  # batches that are filled at the same time; see benchmarks/RESULTS.md


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
        order = (rng.permutation(len(sizes)) if shuffle else np.arange(len(sizes))).tolist()
        if size is not None:
            batches += [order[start : start + size] for start in range(0, len(order), size)]
        else:
            batches += _fill(order, sizes.tolist(), budget, _OPEN if shuffle else 1)
    return BatchPlan(batches, starts)


def _fill(order: Sequence[int], sizes: Sequence[int], budget: int, most: int) -> list[list[int]]:
    """Best fit with at most ``most`` open batches: each sample goes where the least room is left by it; where it fits
    nowhere, the fullest batch is closed and a new one begun."""
    full: list[list[int]] = []
    rooms: list[int] = []
    opened: list[list[int]] = []
    for index in order:
        size = sizes[index]
        fitting = [(room, place) for place, room in enumerate(rooms) if room >= size]
        if fitting:
            place = min(fitting)[1]
        else:
            if len(opened) == most:
                place = rooms.index(min(rooms))
                full.append(opened.pop(place))
                rooms.pop(place)
            place = len(opened)
            opened.append([])
            rooms.append(budget)
        opened[place].append(index)
        rooms[place] -= size
    return full + opened


def _share(batch: Sequence[int], lengths: Sequence[int], parts: int) -> list[list[int]]:
    """The longest samples first, each to the part that has least yet."""
    shares: list[list[int]] = [[] for _ in range(parts)]
    totals = [0] * parts
    for index in sorted(batch, key=lambda index: -lengths[index]):
        least = totals.index(min(totals))
        shares[least].append(index)
        totals[least] += lengths[index]
    return shares
