"""Overlap of texts with reference texts (BLEU and chrF by sacrebleu), and how varied texts are (distinct-n)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest

from stages.evaluate.score.bootstrap import Estimate


def overlap_estimates(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Estimate]:
    """Corpus BLEU (Papineni et al. 2002; characters are the tokens of Chinese) and corpus chrF (Popović 2015), 0 to 1.

    ``references`` holds all reference texts of each text. NaN where there is no text. Without intervals: both are
    metrics of the corpus as one, and a thousand resamples would take minutes.
    """
    if not texts:
        return {name: Estimate.without_interval(math.nan) for name in ("bleu", "chrf")}
    from sacrebleu.metrics import BLEU, CHRF  # 0.4 s

    # One list for each place in the lists of references; None where a text has fewer.
    streams = list(zip_longest(*references))
    scores = {"bleu": BLEU(tokenize="zh"), "chrf": CHRF()}
    return {
        name: Estimate.without_interval(metric.corpus_score(texts, streams).score / 100)
        for name, metric in scores.items()
    }


def distinct(texts: Sequence[str], order: int) -> float:
    """distinct-n (Li et al. 2016): different character n-grams / all n-grams of all texts; NaN where there is none.

    White space is ignored.
    """
    packed = ["".join(text.split()) for text in texts]
    grams = Counter(text[i : i + order] for text in packed for i in range(len(text) - order + 1))
    return len(grams) / grams.total() if grams else math.nan
