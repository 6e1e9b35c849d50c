"""Yes/no questions about objects, absent ones among them: POPE (Li et al. 2023, arXiv 2305.10355)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.evaluate.score.bootstrap import Metric, Sums, divide, ratio
from stages.evaluate.score.mentions import find_mentions

POPE_TASKS = ("random", "popular", "adversarial")  # how the absent object was chosen
_END = r"(?=$|[\s，。！？、；：,.!?;:~”\"])"
# A word that is an answer by itself.
_YES = re.compile(rf"(?:有的?|是的?|对的?|能的?|可以|存在|嗯|当然|(?:能|可以)看[到见]|看得[到见]){_END}")
_NO = re.compile(rf"(?:没有?|不|否|无|不是的?|不对|不能|不存在|看不[到见]|没看[到见]){_END}")
# A statement, which answers if it is about the object asked for: 图中没有狗, 能看到一只猫.
_SUBJECT = r"(?:在?(?:这张)?(?:图|图片|图像|画面)(?:中|里|上)?)?"
_DENIES = re.compile(rf"{_SUBJECT}(?:并?没有|没看[到见]|看不[到见]|不存在|并?不能看[到见])")
_AFFIRMS = re.compile(rf"{_SUBJECT}(?:是?有(?!没有)|(?:能|可以)?看[到见]|看得[到见]|存在)")


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
        counts = {
            "asked": 1,
            "right": right,
            "invalid": parsed is None,
            "said_yes": parsed == "yes",
            "yes_right": parsed == "yes" and right,
            "yes_expected": self.expected == "yes",
        }
        by_task = {f"{name}_{self.task}": value for name, value in counts.items()}
        likelier = "yes" if self.yes_margin > 0 else "no"
        return counts | by_task | {"likelihood_right": likelier == self.expected}


def _metrics(prefix: str, suffix: str) -> dict[str, Metric]:
    """Of all questions (``suffix`` empty) or of those of one task."""

    def f1(sums: Sums) -> np.ndarray:
        return divide(2 * sums[f"yes_right{suffix}"], sums[f"said_yes{suffix}"] + sums[f"yes_expected{suffix}"])

    def yes_ratio(sums: Sums) -> np.ndarray:
        return divide(sums[f"said_yes{suffix}"], sums[f"asked{suffix}"] - sums[f"invalid{suffix}"])

    accuracy = ratio(f"right{suffix}", f"asked{suffix}")
    return {f"{prefix}_accuracy": accuracy, f"{prefix}_f1": f1, f"{prefix}_yes_ratio": yes_ratio}


POPE_METRICS: dict[str, Metric] = _metrics("pope", "") | {
    "pope_invalid": ratio("invalid", "asked"),
    "pope_likelihood_accuracy": ratio("likelihood_right", "asked"),
}
for _task in POPE_TASKS:
    POPE_METRICS |= _metrics(f"pope_{_task}", f"_{_task}")


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
