"""What the loss tells, on curves whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stages.report.loss_diagnostics import Jump, LossRow, jumps, plateau

SEEDS = range(40)
Curve = Callable[[np.ndarray], np.ndarray]


def log(losses: np.ndarray, epochs: int = 1, every: int = 10) -> list[LossRow]:
    """Points at equal distances, 100 target tokens a step."""
    last = every * len(losses)
    return [
        LossRow(step, epochs * step / last, 100 * step, float(loss))
        for step, loss in zip(range(every, last + 1, every), losses, strict=True)
    ]


def noisy(curve: Curve, points: int, seed: int, noise: float = 0.05, alike: float = 0.0) -> np.ndarray:
    """``curve`` over (0, 1] times log-normal noise; ``alike``: its correlation from point to point."""
    values = np.random.default_rng(seed).standard_normal(points)
    for index in range(1, points):
        values[index] = alike * values[index - 1] + np.sqrt(1 - alike**2) * values[index]
    return curve(np.arange(1, points + 1) / points) * np.exp(noise * values)


def found(curve: Curve, points: int, **noise: float) -> list:
    return [plateau(log(noisy(curve, points, seed, **noise)), 100, 0.95, seed) for seed in SEEDS]


@pytest.mark.parametrize("points", [45, 450])
@pytest.mark.parametrize("knee", [0.1, 0.4])
def test_the_plateau_begins_where_it_does(knee: float, points: int) -> None:
    plateaus = found(lambda t: np.exp(-np.minimum(t, knee) / knee - 0.1 * t), points)
    assert None not in plateaus
    begins = np.array([p.tokens for p in plateaus]) / (1000 * points)
    assert np.mean(begins) == pytest.approx(knee, abs=0.02)
    covered = np.mean([p.low <= 1000 * points * knee <= p.high for p in plateaus])
    assert covered > 0.8
    assert np.mean([p.high - p.low for p in plateaus]) < 0.2 * 1000 * points
    start, end = np.exp(-1 - 0.1 * knee), np.exp(-1.1)
    assert np.mean([p.drop for p in plateaus]) == pytest.approx(start - end, abs=0.01)
    assert np.mean([p.drop_low <= start - end <= p.drop_high for p in plateaus]) > 0.8
    assert np.mean([p.level for p in plateaus]) == pytest.approx((start + end) / 2, abs=0.02)


def test_a_smooth_fall_ends_when_little_is_left_of_it() -> None:
    plateaus = found(lambda t: 0.4 + 1.4 * np.exp(-t / 0.03), 45)
    assert all(0.06 < p.epoch < 0.15 for p in plateaus)  # two to five times the time constant
    assert all(p.step == pytest.approx(450 * p.epoch, abs=1) for p in plateaus)


@pytest.mark.parametrize("alike", [0.0, 0.5])
@pytest.mark.parametrize("points", [45, 450])
@pytest.mark.parametrize(
    "curve",
    [lambda t: 0.4 + 0 * t, lambda t: 0.5 * np.exp(-0.5 * t), lambda t: np.where(t < 0.5, 0.6, 0.4)],
    ids=["noise", "straight", "step"],
)
def test_no_plateau_where_the_loss_does_not_settle(curve: Curve, points: int, alike: float) -> None:
    plateaus = found(curve, points, alike=alike)
    assert plateaus.count(None) >= 0.9 * len(plateaus)


def test_a_loss_that_falls_faster_and_faster_has_no_plateau() -> None:
    assert set(found(lambda t: np.exp(-3 * np.maximum(t - 0.5, 0)), 100)) == {None}


def test_exact_curves_and_short_ones() -> None:
    t = np.arange(1, 61) / 60
    assert plateau(log(0 * t + 0.4), 20, 0.95, 1) is None
    assert plateau(log(np.exp(-t)), 20, 0.95, 1) is None
    exact = plateau(log(np.exp(-5 * np.minimum(t, 0.3))), 20, 0.95, 1)
    assert exact.tokens == pytest.approx(0.3 * 60_000, abs=500) and exact.drop == pytest.approx(0, abs=0.01)
    assert plateau(log(np.exp(-5 * np.minimum(t, 0.3)))[:10], 20, 0.95, 1) is None
    assert plateau([], 20, 0.95, 1) is None


def test_a_long_log_costs_little_more_and_gives_the_same() -> None:
    curve = noisy(lambda t: np.exp(-np.minimum(t, 0.2) / 0.2), 20_000, 0)
    long = plateau(log(curve), 100, 0.95, 1)
    assert long.epoch == pytest.approx(0.2, abs=0.01)
    assert long.step == pytest.approx(200_000 * long.epoch, abs=20)


def saw(planted: float, points: int, seed: int, epochs: int = 2) -> list[LossRow]:
    """A loss that drifts down inside each epoch and jumps up by ``planted`` where the next one begins."""

    def curve(t: np.ndarray) -> np.ndarray:
        inside = (epochs * t - 1e-9) % 1
        return 0.4 + np.exp(-t / 0.03) - planted * inside

    return log(noisy(curve, points, seed), epochs)


@pytest.mark.parametrize("points", [36, 90, 220])
def test_a_planted_jump_is_found_within_its_noise(points: int) -> None:
    every = [jumps(saw(0.15, points, seed))[0] for seed in SEEDS]
    share_of_drift = 0.1  # two windows, their middles a tenth of an epoch apart
    expected = 0.15 * (1 - share_of_drift)
    assert np.mean([jump.size for jump in every]) == pytest.approx(expected, abs=0.02)
    assert np.mean([abs(jump.size - expected) < 2 * jump.noise for jump in every]) > 0.85
    assert np.mean([jump.share < 0.05 for jump in every]) > 0.9
    assert all(jump.drift < 0 for jump in every)
    assert np.mean([jump.usual for jump in every]) < 0


@pytest.mark.parametrize("points", [36, 90, 220])
def test_where_no_jump_is_planted_the_change_is_a_usual_one(points: int) -> None:
    every = [jumps(saw(0.0, points, seed))[0] for seed in SEEDS]
    assert np.mean([jump.share < 0.05 for jump in every]) < 0.2
    assert np.mean([abs(jump.size - jump.usual) > 2 * jump.noise for jump in every]) < 0.2


def test_every_end_of_an_epoch_but_the_last_has_its_change() -> None:
    found = jumps(saw(0.15, 160, 0, epochs=4))
    assert [jump.epoch for jump in found] == [1, 2, 3]
    assert len({(jump.window, jump.places, jump.usual, jump.noise) for jump in found}) == 1


def test_a_row_that_reaches_across_the_boundary_counts_for_neither_epoch() -> None:
    losses = [1.0] * 30 + [9.0] + [2.0] * 30
    rows = [LossRow(step, (step - 0.5) / 30, step, loss) for step, loss in enumerate(losses, start=1)]
    rows[-1] = rows[-1]._replace(epoch=2.0)
    assert rows[30].epoch > 1 > rows[29].epoch
    assert jumps(rows) == [
        Jump(epoch=1, size=1.0, noise=0.0, usual=0.0, places=pytest.approx(45, abs=3), share=0.0, window=3, drift=0.0)
    ]


def test_one_epoch_or_too_few_points_have_no_jump() -> None:
    assert jumps(log(np.ones(50), epochs=1)) == []
    assert jumps(log(np.ones(8), epochs=2)) == []
    assert jumps(log(np.ones(5), epochs=4)) == []
    assert jumps([]) == []
