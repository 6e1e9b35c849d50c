"""Batches by token budget."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.data.batches import plan_batches, plan_validation

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=200)


@given(LENGTHS, st.integers(60, 300), st.integers(1, 3), st.booleans())
def test_every_sample_once_an_epoch_within_the_budget(
    lengths: list[int], budget: int, epochs: int, shuffle: bool
) -> None:
    plan = plan_batches(lengths, budget, None, epochs, shuffle, 1)
    assert all(sum(lengths[i] for i in batch) <= budget for batch in plan)
    bounds = [*plan.epoch_starts, len(plan)]
    for start, stop in pairwise(bounds):
        assert sorted(i for batch in plan.batches[start:stop] for i in batch) == list(range(len(lengths)))


def test_orders() -> None:
    lengths = [1 + i % 7 for i in range(300)]
    plan = plan_batches(lengths, 20, None, 2, True, 1)
    first, second = plan.batches[: plan.epoch_starts[1]], plan.batches[plan.epoch_starts[1] :]
    assert first != second
    assert plan == plan_batches(lengths, 20, None, 2, True, 1)
    assert plan != plan_batches(lengths, 20, None, 2, True, 2)
    still = plan_batches(lengths, 20, None, 2, False, 1)
    assert still.batches[: still.epoch_starts[1]] == still.batches[still.epoch_starts[1] :]
    assert [i for batch in still.batches[: still.epoch_starts[1]] for i in batch] == list(range(300))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_sample_longer_than_the_budget_is_a_batch_of_its_own(shuffle: bool) -> None:
    assert sorted(plan_batches([8, 50, 9], 10, None, 1, shuffle, 1)) == [[0], [1], [2]]


def test_batches_are_nearly_full() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(40, 160, 2000).tolist()
    plan = plan_batches(lengths, 2048, None, 1, True, 1)
    assert sum(lengths) / 2048 / len(plan) > 0.98


def test_samples_of_a_batch_have_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(40, 160, 10_000)
    plan = plan_batches(lengths.tolist(), 2048, None, 1, True, 1)
    spreads = [np.std(lengths[batch]) for batch in plan]
    assert np.mean(spreads) < 0.2 * np.std(lengths)
    means = np.array([np.mean(lengths[batch]) for batch in plan])
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.2  # but batches are in random order


@given(LENGTHS, st.integers(1, 200), st.booleans())
def test_validation_takes_the_number_of_random_samples(lengths: list[int], samples: int, by_size: bool) -> None:
    size = (None, 4) if by_size else (100, None)
    plan = plan_validation(lengths, *size, samples, 1)
    chosen = [index for batch in plan for index in batch]
    assert len(chosen) == len(set(chosen)) == min(samples, len(lengths)) and set(chosen) <= set(range(len(lengths)))
    assert all(len(batch) <= 4 if by_size else sum(lengths[i] for i in batch) <= 100 for batch in plan)
    assert plan == plan_validation(lengths, *size, samples, 1)


def test_validation_samples_come_from_everywhere_in_the_file() -> None:
    """Files are often sorted, and so are the built-in world's samples: descriptions first."""
    chosen = [index for batch in plan_validation([10] * 400, 200, None, 100, 1) for index in batch]
    assert len(chosen) == 100 and 30 < sum(index < 200 for index in chosen) < 70


@given(LENGTHS, st.integers(60, 300), st.integers(2, 4))
def test_processes_share_every_batch(lengths: list[int], budget: int, processes: int) -> None:
    """Every sample is in the same step as with one process; numbers of tokens differ by at most one sample."""
    plan = plan_batches(lengths, budget, None, 2, True, 1)
    parts = [plan.part(lengths, process, processes) for process in range(processes)]
    assert all(part.epoch_starts == plan.epoch_starts for part in parts)
    for batch, *shares in zip(plan, *parts, strict=True):
        assert sorted(index for share in shares for index in share if index >= 0) == sorted(batch)
        assert all(shares)
        loads = [sum(lengths[index] for index in share if index >= 0) for share in shares]
        assert max(loads) - min(loads) <= max(lengths[index] for index in batch)


def test_epoch_at() -> None:
    plan = plan_batches([10] * 10, 20, None, 2, True, 1)  # five batches an epoch
    assert [plan.epoch_at(step) for step in (0, 1, 5, 7)] == pytest.approx([0, 0.2, 1, 1.4])
    assert plan.epoch_at(10) == 2


def test_batches_of_a_number_of_samples() -> None:
    lengths = [1 + i % 7 for i in range(10)]
    still = plan_batches(lengths, None, 4, 2, False, 1)
    assert still.batches == 2 * [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] and still.epoch_starts == [0, 3]
    mixed = plan_batches(lengths, None, 4, 2, True, 1)
    assert [len(batch) for batch in mixed] == [4, 4, 2, 4, 4, 2]
    for epoch in (mixed.batches[:3], mixed.batches[3:]):
        assert sorted(index for batch in epoch for index in batch) == list(range(10))
    assert mixed.batches[:3] != mixed.batches[3:]
