"""Where hallucination sits: in which sentence, in which kinds of object, and whether the background suggests it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from stages.common.world.scene import Scene
from stages.common.world.vocabulary import KINDS
from stages.evaluate.score.bootstrap import Bootstrap, Estimate, Metric, ratio
from stages.evaluate.score.texts import TextScore

_SENTENCE = re.compile(r"[^。！？!?\n]*[。！？!?\n]+|[^。！？!?\n]+$")
_FEWEST = 0.1  # share of texts that must have a k-th sentence for it to be shown
FREQUENCIES = ("frequent", "middle", "rare")
BACKGROUND = ("home", "elsewhere")

Counts = dict[str, float]


class Point(NamedTuple):
    """One place of a series. ``texts``: how many it is about; ``kinds``: those of its group, where they are few."""

    at: str
    texts: int
    estimates: dict[str, Estimate]
    kinds: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """As JSON."""
        intervals = {name: estimate.row() for name, estimate in self.estimates.items()}
        return {"at": self.at, "texts": self.texts, "intervals": intervals, "kinds": self.kinds}


_BY_KIND: dict[str, Metric] = {"chair_i": ratio("wrong", "mentions"), "recall": ratio("named", "there")}
_BY_SENTENCE = _BY_KIND | {"chair_i_here": ratio("wrong_here", "mentions_here")}
PRIOR_METRICS: dict[str, Metric] = {
    "hallucinated_at_home": ratio("wrong_home", "wrong"),
    "hallucinated_at_home_expected": ratio("wrong_home_expected", "wrong"),
}


def by_sentence(scores: Sequence[TextScore], bootstrap: Bootstrap) -> list[Point]:
    """Texts cut off after their k-th sentence, k = 1, 2, ...; one that has ended before counts as it is.

    ``chair_i_here`` counts the k-th sentence alone.
    """
    ends = [[match.end() for match in _SENTENCE.finditer(score.text)] for score in scores]
    series = []
    for k in range(1, max(map(len, ends), default=0) + 1):
        texts = sum(len(found) >= k for found in ends)
        if texts < _FEWEST * len(scores):
            break
        rows = [_cut_counts(score, found, k) for score, found in zip(scores, ends, strict=True)]
        series.append(Point(str(k), texts, bootstrap.of_sums(rows, _BY_SENTENCE)))
    return series


def _cut_counts(score: TextScore, ends: Sequence[int], k: int) -> Counts:
    stop = ends[k - 1] if k <= len(ends) else len(score.text)
    start = ends[k - 2] if 1 < k <= len(ends) else 0 if k == 1 else stop
    shown = [mention for mention in score.mentions if mention.start < stop]
    here = [mention for mention in shown if mention.start >= start]
    there = score.scene.kinds
    return {
        "mentions": len(shown),
        "wrong": sum(mention.kind not in there for mention in shown),
        "mentions_here": len(here),
        "wrong_here": sum(mention.kind not in there for mention in here),
        "named": len({mention.kind for mention in shown} & there),
        "there": len(there),
    }


def by_frequency(scores: Sequence[TextScore], frequency: Mapping[str, int], bootstrap: Bootstrap) -> list[Point]:
    """Kinds in thirds, by how many train scenes show them."""
    ranked = sorted(frequency, key=lambda kind: (-frequency[kind], kind))
    third = -(-len(ranked) // len(FREQUENCIES))
    label = {kind: FREQUENCIES[place // third] for place, kind in enumerate(ranked)}
    series = _by_label(scores, lambda kind, scene: label[kind], FREQUENCIES, bootstrap)
    return [point._replace(kinds=tuple(kind for kind in ranked if label[kind] == point.at)) for point in series]


def by_background(scores: Sequence[TextScore], bootstrap: Bootstrap) -> list[Point]:
    """Kinds that favour the scene's background, and the others."""
    return _by_label(scores, lambda kind, scene: BACKGROUND[not _at_home(kind, scene)], BACKGROUND, bootstrap)


def _at_home(kind: str, scene: Scene) -> bool:
    return scene.background in KINDS[kind].homes


def _by_label(
    scores: Sequence[TextScore], label: Callable[[str, Scene], str], labels: Iterable[str], bootstrap: Bootstrap
) -> list[Point]:
    series = []
    for wanted in labels:
        rows = []
        for score in scores:
            there = {kind for kind in score.scene.kinds if label(kind, score.scene) == wanted}
            said = [mention.kind for mention in score.mentions if label(mention.kind, score.scene) == wanted]
            rows.append(
                {
                    "mentions": len(said),
                    "wrong": sum(kind not in there for kind in said),
                    "named": len(there.intersection(said)),
                    "there": len(there),
                }
            )
        series.append(Point(wanted, len(scores), bootstrap.of_sums(rows, _BY_KIND)))
    return series


def prior_counts(score: TextScore, frequency: Mapping[str, int]) -> Counts:
    """Invented mentions of kinds that favour the background, and how many there would be if what is hallucinated were
    drawn by its frequency in the train scenes, whatever the background."""
    scene = score.scene
    wrong = [mention.kind for mention in score.mentions if mention.kind not in scene.kinds]
    absent = {kind: count for kind, count in frequency.items() if kind not in scene.kinds}
    at_home = sum(count for kind, count in absent.items() if _at_home(kind, scene))
    return {
        "wrong": len(wrong),
        "wrong_home": sum(_at_home(kind, scene) for kind in wrong),
        "wrong_home_expected": len(wrong) * at_home / max(sum(absent.values()), 1),
    }
