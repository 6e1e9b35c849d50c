"""A Chinese text compared with the truth of its scene: CHAIR (Rohrbach et al. 2018, arXiv 1809.02156), precision and
recall of kinds of object, accuracy of their colours, counts, positions and relations.

Every metric is a function of sums over scenes, so one table of counts per scene, resampled, gives all intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.common.world.scene import Scene
from stages.evaluate.score.bootstrap import Metric, divide, ratio
from stages.evaluate.score.claims import ASPECTS, Claim, claim_right, find_claims
from stages.evaluate.score.mentions import Mention, find_mentions
from stages.evaluate.score.misnamed import misnamed_kinds

_NGRAM = 4

Pairs = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class TextScore:
    """A text compared with the truth of its scene.

    ``mentions`` are those that are not denied. ``colours``: the first stated colour of each kind of the scene that has
    a single colour.
    ``claims``: those about objects in the scene, each with whether it is true. ``misnamed``: the kinds that are named
    in place of another thing of the scene; all other kinds that are not in the scene are hallucinated.
    """

    text: str
    scene: Scene
    mentions: tuple[Mention, ...]
    colours: dict[str, str]
    claims: tuple[tuple[Claim, bool], ...]
    misnamed: frozenset[str]

    @property
    def first_mentions(self) -> list[Mention]:
        """The first mention of each kind, in order."""
        first: dict[str, Mention] = {}
        for mention in self.mentions:
            first.setdefault(mention.kind, mention)
        return list(first.values())

    @property
    def named(self) -> set[str]:
        return {mention.kind for mention in self.mentions}

    @property
    def missed(self) -> list[str]:
        return [group.kind for group in self.scene.groups if group.kind not in self.named]

    def colour_right(self, mention: Mention) -> bool | None:
        """None if no colour is stated, or the object is not in the scene or has no single colour."""
        true = _true_colours(self.scene).get(mention.kind)
        return None if mention.colour is None or true is None else mention.colour == true

    def counts(self, held_out: Pairs) -> dict[str, float]:
        """What this text adds to the sums of TEXT_METRICS. ``held_out``: (kind, colour) pairs not in train."""
        there, true = self.scene.kinds, _true_colours(self.scene)
        wrong = sum(mention.kind not in there for mention in self.mentions)
        misnamed = sum(mention.kind in self.misnamed for mention in self.mentions)
        rare = {kind for kind in self.colours if (kind, true[kind]) in held_out}
        right = {kind for kind, colour in self.colours.items() if colour == true[kind]}
        claimed = {aspect: [right for claim, right in self.claims if claim.aspect == aspect] for aspect in ASPECTS}
        return {
            "texts": 1,
            "texts_with_mentions": bool(self.mentions),
            "mentions": len(self.mentions),
            "wrong_mentions": wrong,
            "misnamed_mentions": misnamed,
            "hallucinated_mentions": wrong - misnamed,
            "texts_with_wrong": wrong > 0,
            "named": len(self.named),
            "named_right": len(self.named & there),
            "there": len(there),
            "coloured": len(self.colours),
            "coloured_right": len(right),
            "rare_coloured": len(rare),
            "rare_coloured_right": len(rare & right),
            **{aspect: len(truths) for aspect, truths in claimed.items()},
            **{f"{aspect}_right": sum(truths) for aspect, truths in claimed.items()},
            "characters": len(self.text),
            "repetition": repetition(self.text),
        }


def score_text(text: str, scene: Scene) -> TextScore:
    """Denied objects are not counted as mentions. Of several colours stated of a kind, the first counts."""
    mentions = tuple(mention for mention in find_mentions(text) if not mention.negated)
    true = _true_colours(scene)
    colours: dict[str, str] = {}
    for mention in mentions:
        if mention.colour is not None and mention.kind in true:
            colours.setdefault(mention.kind, mention.colour)
    claims = find_claims(text, mentions)
    judged = [(claim, claim_right(claim, scene)) for claim in claims]
    known = tuple((claim, right) for claim, right in judged if right is not None)
    return TextScore(text, scene, mentions, colours, known, misnamed_kinds(mentions, claims, scene))


def _true_colours(scene: Scene) -> dict[str, str]:
    """Of the kinds that have a single colour."""
    return {group.kind: group.colour for group in scene.groups if group.colour is not None}


def repetition(text: str) -> float:
    """Share of a text's four-character sequences that occurred before in it; 0 for shorter texts."""
    grams = [text[i : i + _NGRAM] for i in range(len(text) - _NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


TEXT_METRICS: dict[str, Metric] = {
    "chair_i": ratio("wrong_mentions", "mentions"),
    "misnamed": ratio("misnamed_mentions", "mentions"),
    "hallucinated": ratio("hallucinated_mentions", "mentions"),
    "unsupported": lambda sums: divide(sums["named"] - sums["named_right"], sums["texts"]),
    "chair_s": ratio("texts_with_wrong", "texts_with_mentions"),
    "precision": ratio("named_right", "named"),
    "recall": ratio("named_right", "there"),
    "f1": lambda sums: divide(2 * sums["named_right"], sums["named"] + sums["there"]),
    "colour_accuracy": ratio("coloured_right", "coloured"),
    "colour_accuracy_held_out": ratio("rare_coloured_right", "rare_coloured"),
    **{f"{aspect}_accuracy": ratio(f"{aspect}_right", aspect) for aspect in ASPECTS},
    "length": ratio("characters", "texts"),
    "repetition": ratio("repetition", "texts"),
}


def mention_rows(score: TextScore) -> dict[str, Any]:
    """``mentions`` and ``missed`` of a row of answers.jsonl."""
    return {
        "mentions": [
            {
                "kind": mention.kind,
                "word": mention.word,
                "start": mention.start,
                "end": mention.end,
                "colour": mention.colour,
                "supported": mention.kind in score.scene.kinds,
                "misnamed": mention.kind in score.misnamed,
                "colour_right": score.colour_right(mention),
            }
            for mention in score.mentions
        ],
        "missed": score.missed,
    }
