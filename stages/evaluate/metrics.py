"""Hallucination counted: CHAIR, object precision and recall, colours, POPE; each with a bootstrap interval.

Every metric is a function of sums over scenes, so one table of per-scene counts, resampled, gives all intervals.
CHAIR: Rohrbach et al. 2018 (arXiv 1809.02156). POPE: Li et al. 2023 (arXiv 2305.10355).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from stages.common.world import Scene
from stages.evaluate.mentions import Mention, find_mentions

POPE_TASKS = ("random", "popular", "adversarial")
_NGRAM = 4
_END = r"(?=$|[\s，。！？、；：,.!?;:~”\"])"
# A word that is an answer by itself.
_YES = re.compile(rf"(?:有的?|是的?|对的?|能的?|可以|存在|嗯|当然|(?:能|可以)看[到见]|看得[到见]){_END}")
_NO = re.compile(rf"(?:没有?|不|否|无|不是的?|不对|不能|不存在|看不[到见]|没看[到见]){_END}")
# A statement, which answers if it is about the object asked for: 图中没有狗, 能看到一只猫.
_SUBJECT = r"(?:在?(?:这张)?(?:图|图片|图像|画面)(?:中|里|上)?)?"
_DENIES = re.compile(rf"{_SUBJECT}(?:并?没有|没看[到见]|看不[到见]|不存在|并?不能看[到见])")
_AFFIRMS = re.compile(rf"{_SUBJECT}(?:是?有(?!没有)|(?:能|可以)?看[到见]|看得[到见]|存在)")

Pairs = frozenset[tuple[str, str]]
Sums = dict[str, np.ndarray]


class Interval(NamedTuple):
    """A value and its percentile bootstrap interval; NaN where the value is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TextScore:
    """A text against the truth of its scene. ``colours`` is the first stated colour of each kind that is there."""

    text: str
    scene: Scene
    mentions: tuple[Mention, ...]
    colours: dict[str, str]

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
    return TextScore(text, scene, mentions, colours)


def _true_colours(scene: Scene) -> dict[str, str]:
    return {group.kind: group.colour for group in scene.groups}


def repetition(text: str) -> float:
    """Share of a text's four-character runs that it has had before; 0 for texts shorter than that."""
    grams = [text[i : i + _NGRAM] for i in range(len(text) - _NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def parse_yes_no(answer: str, kind: str | None = None) -> str | None:
    """yes, no, or None (invalid) by how the answer begins; nothing later in it counts.

    Either a word that answers by itself (有，..., 是的, 没，...) or a statement that (no) such thing is there. With
    ``kind``, a statement must say so of that kind: 图中有两只狗 does not answer 图中有猫吗, nor does 有图中没有猫.
    A caption (海边有一只小狗) or a sentence on colours is neither, or a model that only captions would pass for one
    that says yes.
    """
    said = answer.strip(" \t\r\n“”\"'")
    for verdict, alone, statement in (("no", _NO, _DENIES), ("yes", _YES, _AFFIRMS)):
        if alone.match(said):
            return verdict
        if statement.match(said):
            sentence = re.split(r"[。！？!?\n]", said, maxsplit=1)[0]
            named = {mention.kind for mention in find_mentions(sentence) if mention.negated == (verdict == "no")}
            return verdict if kind is None or kind in named else None
    return None


@dataclass(frozen=True)
class PopeAnswer:
    """``yes_margin``: log-likelihood of 有 minus that of 没有 as the answer's beginning."""

    scene: str
    task: str
    prompt: str
    answer: str
    kind: str
    expected: str
    yes_margin: float

    @property
    def parsed(self) -> str | None:
        return parse_yes_no(self.answer, self.kind)

    def counts(self) -> dict[str, float]:
        """An answer that is neither yes nor no counts as wrong."""
        parsed, right = self.parsed, self.parsed == self.expected
        return {
            "asked": 1,
            "right": right,
            "invalid": parsed is None,
            "said_yes": parsed == "yes",
            "yes_right": parsed == "yes" and right,
            "yes_expected": self.expected == "yes",
            "likelihood_right": ("yes" if self.yes_margin > 0 else "no") == self.expected,
            **{f"asked_{task}": self.task == task for task in POPE_TASKS},
            **{f"right_{task}": self.task == task and right for task in POPE_TASKS},
        }


def ratio(part: str, whole: str) -> Callable[[Sums], np.ndarray]:
    return lambda sums: _divide(sums[part], sums[whole])


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


TEXT_METRICS: dict[str, Callable[[Sums], np.ndarray]] = {
    "chair_i": ratio("wrong_mentions", "mentions"),
    "chair_s": ratio("texts_with_wrong", "texts"),
    "precision": ratio("named_right", "named"),
    "recall": ratio("named_right", "there"),
    "f1": lambda sums: _divide(2 * sums["named_right"], sums["named"] + sums["there"]),
    "colour_accuracy": ratio("coloured_right", "coloured"),
    "colour_accuracy_held_out": ratio("rare_coloured_right", "rare_coloured"),
    "length": ratio("characters", "texts"),
    "repetition": ratio("repetition", "texts"),
}
POPE_METRICS: dict[str, Callable[[Sums], np.ndarray]] = {
    "pope_accuracy": ratio("right", "asked"),
    "pope_f1": lambda sums: _divide(2 * sums["yes_right"], sums["said_yes"] + sums["yes_expected"]),
    "pope_yes_ratio": lambda sums: _divide(sums["said_yes"], sums["asked"] - sums["invalid"]),
    "pope_invalid": ratio("invalid", "asked"),
    "pope_likelihood_accuracy": ratio("likelihood_right", "asked"),
    **{f"pope_{task}_accuracy": ratio(f"right_{task}", f"asked_{task}") for task in POPE_TASKS},
}


def bootstrap(
    rows: Sequence[dict[str, float]],
    metrics: dict[str, Callable[[Sums], np.ndarray]],
    samples: int,
    confidence: float,
    seed: int,
) -> dict[str, Interval]:
    """Metrics of the summed ``rows`` (one per scene), with percentile intervals over resampled scenes.

    Resamples in which a metric is undefined are left out of its interval; without any rows, all is undefined.
    """
    if not rows:
        return dict.fromkeys(metrics, Interval(math.nan, math.nan, math.nan))
    columns = sorted({name for row in rows for name in row})
    table = np.array([[float(row.get(name, 0)) for name in columns] for row in rows])
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=samples)
    total = {name: table[:, i].sum(keepdims=True) for i, name in enumerate(columns)}
    resampled = dict(zip(columns, (weights @ table).T, strict=True))
    tails = [50 * (1 - confidence), 50 * (1 + confidence)]
    result = {}
    for name, metric in metrics.items():
        spread = metric(resampled)
        spread = spread[~np.isnan(spread)]
        low, high = np.percentile(spread, tails) if len(spread) else (math.nan, math.nan)
        result[name] = Interval(float(metric(total)[0]), float(low), float(high))
    return result


def sum_by_scene(counted: Iterable[tuple[str, dict[str, float]]]) -> list[dict[str, float]]:
    """Counts summed per scene: a scene's questions are not independent, so scenes are what is resampled."""
    scenes: dict[str, dict[str, float]] = {}
    for scene, counts in counted:
        row = scenes.setdefault(scene, {})
        for name, value in counts.items():
            row[name] = row.get(name, 0.0) + value
    return list(scenes.values())


def summarise(
    descriptions: Sequence[TextScore],
    captions: Sequence[TextScore],
    pope: Sequence[PopeAnswer],
    held_out: Pairs,
    samples: int,
    confidence: float,
    seed: int,
) -> dict[str, Interval]:
    """All metrics of one checkpoint; those of the short prompt carry the prefix ``caption_``."""
    settings = (samples, confidence, seed)
    long, short = ([score.counts(held_out) for score in scores] for scores in (descriptions, captions))
    found = bootstrap(long, TEXT_METRICS, *settings)
    asked_briefly = {name: metric for name, metric in TEXT_METRICS.items() if name != "colour_accuracy_held_out"}
    found |= {f"caption_{name}": value for name, value in bootstrap(short, asked_briefly, *settings).items()}
    asked = sum_by_scene((answer.scene, answer.counts()) for answer in pope)
    return found | bootstrap(asked, POPE_METRICS, *settings)


def interval_row(interval: Interval) -> dict[str, float | None]:
    """As JSON: not-a-number becomes null."""
    return {name: None if math.isnan(value) else round(value, 5) for name, value in interval._asdict().items()}


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


def pope_row(answer: PopeAnswer) -> dict[str, Any]:
    return {
        "id": answer.scene,
        "split": "test",
        "task": answer.task,
        "prompt": answer.prompt,
        "answer": answer.answer,
        "kind": answer.kind,
        "expected": answer.expected,
        "parsed": answer.parsed,
        "yes_margin": round(answer.yes_margin, 4),
    }


def samples_text(parameters: int, answers: Iterable[tuple[str, str]]) -> str:
    """The notes' own form: the parameter count, then `[Image]: name` and the answer for each (name, answer)."""
    blocks = [f"模型参数量：{parameters / 1e6:.3f} 百万"]
    blocks += [f"[Image]: {name}\n{answer}" for name, answer in answers]
    return "\n\n".join(blocks) + "\n"
