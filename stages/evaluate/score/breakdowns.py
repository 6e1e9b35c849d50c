"""Hallucination by sentence, by how frequent the kind of object is, by whether the background suggests it, and by
distance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from stages.common.world.scene import Scene
from stages.common.world.vocabulary import KINDS
from stages.evaluate.score.bootstrap import Bootstrap, Estimate, Metric, ratio
from stages.evaluate.score.depth import DISTANCES, RECALL_METRICS, recall_counts, sentence_ends
from stages.evaluate.score.texts import TextScore

# Of the texts: the series by sentence ends where fewer have a k-th one, and what is measured in the k-th alone
# ends where it has fewer first mentions.
_SMALLEST_SHARE = 0.1
FREQUENCIES = ("frequent", "middle", "rare")
BACKGROUND = ("favoured", "other")

Counts = dict[str, float]


class Point(NamedTuple):
    """One point of a series, named ``at``. ``texts``: how many texts it covers; ``kinds``: those that it is about, if
    it is about some kinds only."""

    at: str
    texts: int
    estimates: dict[str, Estimate]
    kinds: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """For metrics.json."""
        intervals = {name: estimate.row() for name, estimate in self.estimates.items()}
        return {"at": self.at, "texts": self.texts, "intervals": intervals, "kinds": self.kinds}


_CHAIR_RECALL: dict[str, Metric] = {"chair_i": ratio("wrong", "mentions"), "recall": ratio("named", "there")}
_BY_KIND = _CHAIR_RECALL | {
    "misnamed": ratio("misnamed", "mentions"),
    "hallucinated": ratio("hallucinated", "mentions"),
}
_CUT = _CHAIR_RECALL | RECALL_METRICS
_NEW: dict[str, Metric] = {
    "chair_i_new": ratio("wrong_new", "mentions_new"),
    "misnamed_new": ratio("misnamed_new", "mentions_new"),
    "hallucinated_new": ratio("hallucinated_new", "mentions_new"),
}
PRIOR_METRICS: dict[str, Metric] = {
    "wrong_on_favoured_background": ratio("wrong_favoured", "wrong"),
    "wrong_on_favoured_background_expected": ratio("wrong_favoured_expected", "wrong"),
}


def by_sentence(scores: Sequence[TextScore], bootstrap: Bootstrap) -> list[Point]:
    """Texts cut off after their k-th sentence, k = 1, 2, ...; shorter texts count unchanged.

    ``chair_i_new``, ``misnamed_new`` and ``hallucinated_new`` count, in the k-th sentence alone, kinds that no sentence
    before it names, up to the first sentence with hardly any of them.
    Ends before the first k that few texts reach.
    """
    ends = [sentence_ends(score.text) for score in scores]
    series: list[Point] = []
    measured = True
    for k in range(1, max(map(len, ends), default=0) + 1):
        texts = sum(len(found) >= k for found in ends)
        if texts < _SMALLEST_SHARE * len(scores):
            break
        rows = [_cut_counts(score, found, k) for score, found in zip(scores, ends, strict=True)]
        measured &= sum(row["mentions_new"] for row in rows) >= max(1, _SMALLEST_SHARE * len(scores))
        series.append(Point(str(k), texts, bootstrap.of_sums(rows, _CUT | _NEW if measured else _CUT)))
    return series


def _cut_counts(score: TextScore, ends: Sequence[int], k: int) -> Counts:
    stop = ends[k - 1] if k <= len(ends) else len(score.text)
    start = ends[k - 2] if 1 < k <= len(ends) else 0 if k == 1 else stop
    shown = [mention for mention in score.mentions if mention.start < stop]
    new = [mention.kind for mention in score.first_mentions if start <= mention.start < stop]
    there = score.scene.kinds
    named = {mention.kind for mention in shown}
    return {
        "mentions": len(shown),
        "wrong": sum(mention.kind not in there for mention in shown),
        "mentions_new": len(new),
        "wrong_new": sum(kind not in there for kind in new),
        "misnamed_new": sum(kind in score.misnamed for kind in new),
        "hallucinated_new": sum(kind not in there and kind not in score.misnamed for kind in new),
        "named": len(named & there),
        "there": len(there),
        **recall_counts(score, named),
    }


def by_frequency(scores: Sequence[TextScore], frequency: Mapping[str, int], bootstrap: Bootstrap) -> list[Point]:
    """Kinds in thirds, by the number of train scenes that show them (``frequency``); of those that none shows, in no
    third, only mentions count, as rare."""
    shown = [kind for kind, scenes in frequency.items() if scenes]
    ranked = sorted(shown, key=lambda kind: (-frequency[kind], kind))
    third = -(-len(ranked) // len(FREQUENCIES))
    label = {kind: FREQUENCIES[rank // third] for rank, kind in enumerate(ranked)}
    series = _by_label(scores, lambda kind, scene: label.get(kind, FREQUENCIES[-1]), FREQUENCIES, bootstrap)
    return [point._replace(kinds=tuple(kind for kind in ranked if label[kind] == point.at)) for point in series]


def by_distance(texts: int, estimates: Mapping[str, Estimate]) -> list[Point]:
    """Near and far things, from ``estimates`` of DEPTH_METRICS; CHAIR-i and its parts count first mentions."""
    names = ("chair_i", "misnamed", "hallucinated", "recall")
    return [Point(at, texts, {name: estimates[f"{name}_{at}"] for name in names}) for at in DISTANCES]


def by_background(scores: Sequence[TextScore], bootstrap: Bootstrap) -> list[Point]:
    """Kinds that are more likely on the scene's background, and all other kinds."""
    return _by_label(
        scores, lambda kind, scene: BACKGROUND[not _favours_background(kind, scene)], BACKGROUND, bootstrap
    )


def _favours_background(kind: str, scene: Scene) -> bool:
    return scene.background in KINDS[kind].homes


def _by_label(
    scores: Sequence[TextScore], label: Callable[[str, Scene], str], labels: Iterable[str], bootstrap: Bootstrap
) -> list[Point]:
    series = []
    for name in labels:
        rows = []
        for score in scores:
            there = {kind for kind in score.scene.kinds if label(kind, score.scene) == name}
            mentioned = [mention.kind for mention in score.mentions if label(mention.kind, score.scene) == name]
            rows.append(
                {
                    "mentions": len(mentioned),
                    "wrong": sum(kind not in there for kind in mentioned),
                    "misnamed": sum(kind in score.misnamed for kind in mentioned),
                    "hallucinated": sum(kind not in there and kind not in score.misnamed for kind in mentioned),
                    "named": len(there.intersection(mentioned)),
                    "there": len(there),
                }
            )
        series.append(Point(name, len(scores), bootstrap.of_sums(rows, _BY_KIND)))
    return series


def prior_counts(score: TextScore, frequency: Mapping[str, int]) -> Counts:
    """Wrong mentions of kinds that are more likely on the scene's background, and how many there would be if wrong
    kinds were drawn by their frequency in the train scenes, independent of the background."""
    scene = score.scene
    wrong = [mention.kind for mention in score.mentions if mention.kind not in scene.kinds]
    absent = {kind: count for kind, count in frequency.items() if kind not in scene.kinds}
    favoured = sum(count for kind, count in absent.items() if _favours_background(kind, scene))
    return {
        "wrong": len(wrong),
        "wrong_favoured": sum(_favours_background(kind, scene) for kind in wrong),
        "wrong_favoured_expected": len(wrong) * favoured / max(sum(absent.values()), 1),
    }
