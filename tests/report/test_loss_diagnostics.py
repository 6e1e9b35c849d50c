"""Jumps of the loss, on curves with a jump of known size or with none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stages.report.run.loss_diagnostics import Jump, LossRow, jumps

SEEDS = range(40)
Curve = Callable[[np.ndarray], np.ndarray]


def log(losses: np.ndarray, epochs: int = 1, every: int = 10) -> list[LossRow]:
    """Points at equal distances, 100 target tokens a step."""
    last = every * len(losses)
    return [
        LossRow(step, epochs * step / last, 100 * step, float(loss))
        for step, loss in zip(range(every, last + 1, every), losses, strict=True)
    ]


def noisy(curve: Curve, points: int, seed: int, noise: float = 0.05) -> np.ndarray:
    """``curve`` over (0, 1] times log-normal noise."""
    values = np.random.default_rng(seed).standard_normal(points)
    return curve(np.arange(1, points + 1) / points) * np.exp(noise * values)


def sawtooth(planted: float, points: int, seed: int, epochs: int = 2) -> list[LossRow]:
    """A loss that drifts down inside each epoch and jumps up by ``planted`` where the next one begins."""

    def curve(t: np.ndarray) -> np.ndarray:
        inside = (epochs * t - 1e-9) % 1
        return 0.4 + np.exp(-t / 0.03) - planted * inside

    return log(noisy(curve, points, seed), epochs)


@pytest.mark.parametrize("points", [36, 90, 220])
def test_a_known_jump_is_measured_within_its_noise(points: int) -> None:
    every = [jumps(sawtooth(0.15, points, seed))[0] for seed in SEEDS]
    share_of_drift = 0.1  # two windows, their middles a tenth of an epoch apart
    expected = 0.15 * (1 - share_of_drift)
    assert np.mean([jump.size for jump in every]) == pytest.approx(expected, abs=0.02)
    assert np.mean([abs(jump.size - expected) < 2 * jump.typical_sd for jump in every]) > 0.85
    assert np.mean([jump.size > jump.expected(0.95)[1] for jump in every]) > 0.9
    assert np.mean([jump.typical for jump in every]) < 0


@pytest.mark.parametrize("points", [36, 90, 220])
def test_without_a_jump_the_change_is_a_typical_one(points: int) -> None:
    every = [jumps(sawtooth(0.0, points, seed))[0] for seed in SEEDS]
    assert np.mean([abs(jump.size - jump.typical) > 2 * jump.typical_sd for jump in every]) < 0.2


@pytest.mark.parametrize("points", [26, 36, 90, 400])
def test_noise_is_called_a_jump_as_often_as_the_confidence_says(points: int) -> None:
    every = [jumps(log(noisy(np.ones_like, points, seed), epochs=2))[0] for seed in range(400)]
    for called in ([jump.size > jump.expected(0.95)[1] for jump in every],
                   [jump.size < jump.expected(0.95)[0] for jump in every]):  # fmt: skip
        assert np.mean(called) < 0.045  # 0.025, and three standard errors of 400 trials


def test_every_end_of_an_epoch_but_the_last_is_measured() -> None:
    found = jumps(sawtooth(0.15, 160, 0, epochs=4))
    assert [jump.epoch for jump in found] == [1, 2, 3]
    assert len({(jump.window, jump.positions, jump.typical, jump.typical_sd) for jump in found}) == 1


def test_a_row_with_steps_of_two_epochs_is_left_out() -> None:
    losses = [1.0] * 30 + [9.0] + [2.0] * 30
    rows = [LossRow(step, (step - 0.5) / 30, step, loss) for step, loss in enumerate(losses, start=1)]
    rows[-1] = rows[-1]._replace(epoch=2.0)
    assert rows[30].epoch > 1 > rows[29].epoch
    assert jumps(rows) == [
        Jump(
            epoch=1,
            size=1.0,
            typical=0.0,
            typical_sd=0.0,
            positions=pytest.approx(45, abs=3),
            window=3,
        )
    ]


def test_one_epoch_or_too_few_points_have_no_jump() -> None:
    assert jumps(log(np.ones(50), epochs=1)) == []
    assert jumps(log(np.ones(8), epochs=2)) == []
    assert jumps(log(np.ones(5), epochs=4)) == []
    assert jumps([]) == []
