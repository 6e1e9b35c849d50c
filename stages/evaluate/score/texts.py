"""A Chinese text against the truth of its scene: CHAIR (Rohrbach et al. 2018, arXiv 1809.02156), precision and recall
of kinds of object, and what is said of them.

Every metric is a function of sums over scenes, so one table of per-scene counts, resampled, gives all intervals.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stages.common.world.scene import Scene
from stages.evaluate.score.bootstrap import Metric, divide, ratio
from stages.evaluate.score.claims import ASPECTS, Claim, claim_right, find_claims
from stages.evaluate.score.mentions import Mention, find_mentions

_NGRAM = 4

Pairs = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class TextScore:
    """A text against the truth of its scene. ``colours`` is the first stated colour of each kind that is there;
    ``claims`` are those about objects that are there, each with whether it is right."""

    text: str
    scene: Scene
    mentions: tuple[Mention, ...]
    colours: dict[str, str]
    claims: tuple[tuple[Claim, bool], ...]

    @property
    def named(self) -> set[str]:
        return {mention.kind for mention in self.mentions}

    @property
    def missed(self) -> list[str]:
        return [group.kind for group in self.scene.groups if group.kind not in self.named]

    def colour_right(self, mention: Mention) -> bool | None:
        """None where no colour is stated or the object is not there."""
        if mention.colour is None or mention.kind not in self.scene.kinds:
            return None
        return mention.colour == _true_colours(self.scene)[mention.kind]

    def counts(self, held_out: Pairs) -> dict[str, float]:
        """What this text adds to the sums."""
        there, true = self.scene.kinds, _true_colours(self.scene)
        wrong = sum(mention.kind not in there for mention in self.mentions)
        rare = {kind for kind in self.colours if (kind, true[kind]) in held_out}
        right = {kind for kind, colour in self.colours.items() if colour == true[kind]}
        claimed = {aspect: [right for claim, right in self.claims if claim.aspect == aspect] for aspect in ASPECTS}
        return {
            "texts": 1,
            "mentions": len(self.mentions),
            "wrong_mentions": wrong,
            "texts_with_wrong": wrong > 0,
            "named": len(self.named),
            "named_right": len(self.named & there),
            "there": len(there),
            "coloured": len(self.colours),
            "coloured_right": len(right),
            "rare_coloured": len(rare),
            "rare_coloured_right": len(rare & right),
            **{aspect: len(verdicts) for aspect, verdicts in claimed.items()},
            **{f"{aspect}_right": sum(verdicts) for aspect, verdicts in claimed.items()},
            "characters": len(self.text),
            "repetition": repetition(self.text),
        }


def score_text(text: str, scene: Scene) -> TextScore:
    """Denied objects are no claims. One verdict on colour per kind: of several colours stated, the first counts."""
    mentions = tuple(mention for mention in find_mentions(text) if not mention.negated)
    colours: dict[str, str] = {}
    for mention in mentions:
        if mention.colour is not None and mention.kind in scene.kinds:
            colours.setdefault(mention.kind, mention.colour)
    judged = [(claim, claim_right(claim, scene)) for claim in find_claims(text, mentions)]
    return TextScore(text, scene, mentions, colours, tuple((c, right) for c, right in judged if right is not None))


def _true_colours(scene: Scene) -> dict[str, str]:
    return {group.kind: group.colour for group in scene.groups}


def repetition(text: str) -> float:
    """Share of a text's four-character runs that it has had before; 0 for texts shorter than that."""
    grams = [text[i : i + _NGRAM] for i in range(len(text) - _NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


TEXT_METRICS: dict[str, Metric] = {
    "chair_i": ratio("wrong_mentions", "mentions"),
    "chair_s": ratio("texts_with_wrong", "texts"),
    "precision": ratio("named_right", "named"),
    "recall": ratio("named_right", "there"),
    "f1": lambda sums: divide(2 * sums["named_right"], sums["named"] + sums["there"]),
    "colour_accuracy": ratio("coloured_right", "coloured"),
    "colour_accuracy_held_out": ratio("rare_coloured_right", "rare_coloured"),
    **{f"{aspect}_accuracy": ratio(f"{aspect}_right", aspect) for aspect in ASPECTS},
    "length": ratio("characters", "texts"),
    "repetition": ratio("repetition", "texts"),
}


def text_row(score: TextScore, split: str, task: str, prompt: str, reference: str) -> dict[str, Any]:
    return {
        "id": score.scene.id,
        "split": split,
        "task": task,
        "prompt": prompt,
        "answer": score.text,
        "reference": reference,
        "mentions": [
            {
                "kind": mention.kind,
                "word": mention.word,
                "start": mention.start,
                "end": mention.end,
                "colour": mention.colour,
                "supported": mention.kind in score.scene.kinds,
                "colour_right": score.colour_right(mention),
            }
            for mention in score.mentions
        ],
        "missed": score.missed,
    }


def samples_text(parameters: int, answers: Iterable[tuple[str, str]]) -> str:
    """The notes' own form: the parameter count, then `[Image]: name` and the answer for each (name, answer)."""
    blocks = [f"模型参数量：{parameters / 1e6:.3f} 百万"]
    blocks += [f"[Image]: {name}\n{answer}" for name, answer in answers]
    return "\n\n".join(blocks) + "\n"
