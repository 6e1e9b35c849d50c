"""A linear probe of the decoder's hidden state: which objects of the picture can be read off it before any text is
written (Alain and Bengio 2017, arXiv 1610.01644).

It reads the last position of the prompt: later positions could read the answer's own words. scikit-learn takes
seconds to import, so that only what fits a probe does it.
"""

from __future__ import annotations

import warnings

import numpy as np

from stages.evaluate.score.bootstrap import Bootstrap, Estimate, divide

# Inverse strength of the L2 penalty, as scikit-learn counts it: strong, because there are half as many features as
# scenes.
_C = 0.01
_ITERATIONS = 1000  # of L-BFGS, at most
_FEWEST = 20  # validation scenes that must show a kind, and that must not: with fewer, a probe learns the scenes


def fit_probe(hidden: np.ndarray, present: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Scores [M, K] of ``unseen`` [M, D] by one logistic regression per kind, fitted to ``hidden`` [N, D].

    ``present`` [N, K] says which kinds each of the N scenes holds. Features are standardised. NaN for kinds that fewer
    than 20 of the N scenes hold, or do not hold.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(hidden.astype(np.float64))
    known, new = scaler.transform(hidden.astype(np.float64)), scaler.transform(unseen.astype(np.float64))
    scores = np.full((len(unseen), present.shape[1]), np.nan)
    for kind in np.flatnonzero((present.sum(0) >= _FEWEST) & ((~present).sum(0) >= _FEWEST)):
        model = LogisticRegression(C=_C, max_iter=_ITERATIONS).fit(known, present[:, kind])
        scores[:, kind] = model.decision_function(new)
    return scores


def weighted_auc(scores: np.ndarray, present: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """ROC AUC of ``scores`` [M] for ``present`` [M] in R resamples; ``weights`` [R, M]: how often each scene counts.

    The same as sklearn.metrics.roc_auc_score with sample_weight, for all resamples at once: [R]. Of two equal scores,
    each is higher by half. NaN where a resample has no scene with the kind, or none without it.
    """
    weights = weights.astype(np.float32, copy=False)  # counts: exact, and five times as fast
    there, absent = scores[present, None], scores[None, ~present]
    higher = (there > absent) + (there == absent) * np.float32(0.5)  # [scenes with the kind, scenes without it]
    with_kind, without = weights[:, present], weights[:, ~present]
    pairs = np.einsum("rm,rm->r", with_kind @ higher, without)
    return divide(pairs, with_kind.sum(1) * without.sum(1))


def auc_by_kind(scores: np.ndarray, present: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean ROC AUC over kinds, and the same in each resample [R]; ``scores`` and ``present`` are [M, K].

    Kinds that all or none of the scenes show are left out. NaN where no kind is left.
    """
    from sklearn.metrics import roc_auc_score

    kinds = np.flatnonzero(present.any(0) & ~present.all(0) & ~np.isnan(scores).any(0))
    if not len(kinds):
        return float("nan"), np.full(len(weights), np.nan)
    value = roc_auc_score(present[:, kinds], scores[:, kinds], average="macro")
    areas = np.stack([weighted_auc(scores[:, kind], present[:, kind], weights) for kind in kinds])
    return float(value), _mean(areas)


def probe_estimates(
    learnt: np.ndarray, learnt_present: np.ndarray, hidden: np.ndarray, present: np.ndarray, bootstrap: Bootstrap
) -> tuple[Estimate, list[Estimate]]:
    """AUC of probes fitted to validation scenes and scored on test scenes: the mean over layers, and each layer's.

    ``learnt`` [N, layers + 1, D] and ``hidden`` [M, layers + 1, D] are hidden states of validation and test scenes,
    ``learnt_present`` [N, K] and ``present`` [M, K] what they hold. Index 0, the input embedding, is left out: at a
    position of the prompt it is the same for every picture.
    """
    import sklearn.linear_model  # noqa: F401  (the limit reaches only libraries that are loaded)
    from threadpoolctl import threadpool_limits

    weights = bootstrap.weights.astype(np.float32)
    with threadpool_limits(1):  # more threads take four times as long for matrices of this size
        layers = [
            auc_by_kind(fit_probe(learnt[:, layer], learnt_present, hidden[:, layer]), present, weights)
            for layer in range(1, hidden.shape[1])
        ]
    mean = bootstrap.interval(
        float(_mean(np.array([[value] for value, _ in layers]))[0]), _mean(np.stack([each for _, each in layers]))
    )
    return mean, [bootstrap.interval(*layer) for layer in layers]


def _mean(areas: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is defined; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(areas, axis=0)
