"""The linear probe: on hidden states that hold the kinds of object, and on some that hold nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from stages.evaluate.score.bootstrap import Bootstrap
from stages.evaluate.score.probe import _FEWEST, auc_by_kind, fit_probe, probe_estimates, weighted_auc

KINDS, WIDTH, SCENES = 5, 24, 200
RNG = np.random.default_rng(0)
DIRECTIONS = RNG.normal(size=(KINDS, WIDTH))


def scenes(strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states [N, 3, D] whose last layer alone holds the kinds, and presence [N, K]."""
    rng = np.random.default_rng(seed)
    present = rng.random((SCENES, KINDS)) < 0.3
    hidden = rng.normal(size=(SCENES, 3, WIDTH))
    hidden[:, 2] += strength * present @ DIRECTIONS
    return (hidden * 7 + 3).astype(np.float16), present


def test_a_layer_that_holds_the_kinds_gives_1_and_noise_gives_a_half() -> None:
    learnt, hidden = scenes(3.0, 1), scenes(3.0, 2)
    mean, layers = probe_estimates(*learnt, *hidden, Bootstrap(SCENES, 200, 0.95, 1))
    assert len(layers) == 2  # the input embedding is left out
    noise, holds = layers
    assert noise.value == pytest.approx(0.5, abs=0.06) and noise.low < 0.5 < noise.high
    assert holds.value > 0.98 and holds.low > 0.97
    assert mean.value == pytest.approx((noise.value + holds.value) / 2)
    assert mean.resampled == pytest.approx((noise.resampled + holds.resampled) / 2)


def test_the_same_state_for_every_picture_gives_a_half() -> None:
    _, present = scenes(0.0, 1)
    same = np.ones((SCENES, WIDTH), np.float16)
    value, resampled = auc_by_kind(fit_probe(same, present, same), present, np.ones((1, SCENES)))
    assert value == resampled[0] == 0.5


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_the_area_is_that_of_scikit_learn(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 30))
    scores = np.array(data.draw(st.lists(st.sampled_from([-1.0, 0.0, 0.25, 3.0]), min_size=size, max_size=size)))
    present = np.array(data.draw(st.permutations([True, False] * size)))[:size]
    weights = np.array(data.draw(st.lists(st.integers(0, 4), min_size=size, max_size=size)))
    found = weighted_auc(scores, present, weights[None])[0]
    if weights[present].sum() and weights[~present].sum():
        assert found == pytest.approx(roc_auc_score(present, scores, sample_weight=weights), abs=1e-6)
    else:
        assert math.isnan(found)


def test_kinds_in_all_pictures_or_in_none_are_left_out() -> None:
    scores, present = np.array([[0.1, 0.3, 0.2], [0.4, 0.2, 0.1]]), np.array([[0, 1, 0], [1, 1, 0]], bool)
    value, resampled = auc_by_kind(scores, present, np.ones((1, 2)))
    assert value == resampled[0] == 1.0
    value, resampled = auc_by_kind(scores[:, 1:], present[:, 1:], np.ones((3, 2)))
    assert math.isnan(value) and np.isnan(resampled).all()


def test_a_kind_in_few_validation_scenes_is_left_out() -> None:
    hidden, present = scenes(3.0, 1)
    taught = present.copy()
    taught[:, 0] = np.arange(SCENES) < _FEWEST - 1
    taught[:, 1] = np.arange(SCENES) < _FEWEST
    scores = fit_probe(hidden[:, 2], taught, hidden[:, 2])
    assert np.isnan(scores[:, 0]).all() and not np.isnan(scores[:, 1:]).any()


def test_kinds_that_validation_scenes_cannot_teach_are_left_out() -> None:
    hidden, present = scenes(3.0, 1)
    taught = present.copy()
    taught[:, 0], taught[:, 1] = False, True
    scores = fit_probe(hidden[:, 2], taught, hidden[:, 2])
    assert np.isnan(scores[:, :2]).all() and not np.isnan(scores[:, 2:]).any()
    assert auc_by_kind(scores, present, np.ones((1, SCENES)))[0] > 0.98
