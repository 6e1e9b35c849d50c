"""Yes/no questions about objects, absent ones among them: POPE (Li et al. 2023, arXiv 2305.10355)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from stages.evaluate.files import YES_NO_TASKS, Answer
from stages.evaluate.score.bootstrap import Metric, Sums, divide, ratio
from stages.evaluate.score.mentions import find_mentions

_END = r"(?=$|[\s，。！？、；：,.!?;:~”\"])"
# Words that are an answer by themselves.
_YES = re.compile(rf"(?:有的?|是的?|对的?|能的?|可以|存在|嗯|当然|(?:能|可以)看[到见]|看得[到见]){_END}")
_NO = re.compile(rf"(?:没有?|不|否|无|不是的?|不对|不能|不存在|看不[到见]|没看[到见]){_END}")
# Statements, which answer if they are about the object asked for: 图中没有狗, 能看到一只猫.
_SUBJECT = r"(?:在?(?:这张)?(?:图|图片|图像|画面)(?:中|里|上)?)?"
_DENIES = re.compile(rf"{_SUBJECT}(?:并?没有|没看[到见]|看不[到见]|不存在|并?不能看[到见])")
_AFFIRMS = re.compile(rf"{_SUBJECT}(?:是?有(?!没有)|(?:能|可以)?看[到见]|看得[到见]|存在)")


def parse_yes_no(answer: str, kind: str | None = None) -> str | None:
    """yes, no, or None (invalid), by the beginning of the answer; nothing later in it counts.

    Either a word that answers by itself (有，..., 是的, 没，...) or a statement that such a thing is (not) in the
    picture. With ``kind``, a statement must be about that kind: 图中有两只狗 does not answer 图中有猫吗, nor does
    有图中没有猫. A caption (海边有一只小狗) or a sentence on colours is neither; otherwise a model that only writes
    captions would count as one that answers yes.
    """
    text = answer.strip(" \t\r\n“”\"'")
    for parsed, alone, statement in (("no", _NO, _DENIES), ("yes", _YES, _AFFIRMS)):
        if alone.match(text):
            return parsed
        if statement.match(text):
            sentence = re.split(r"[。！？!?\n]", text, maxsplit=1)[0]
            named = {mention.kind for mention in find_mentions(sentence) if mention.negated == (parsed == "no")}
            return parsed if kind is None or kind in named else None
    return None


def pope_counts(answer: Answer) -> dict[str, float]:
    """What an answer to a yes/no question adds to the sums of POPE_METRICS. Neither yes nor no counts as wrong."""
    parsed = parse_yes_no(answer.answer, answer.kind)
    right = parsed == answer.expected
    counts = {
        "asked": 1,
        "right": right,
        "invalid": parsed is None,
        "answered_yes": parsed == "yes",
        "yes_right": parsed == "yes" and right,
        "yes_expected": answer.expected == "yes",
    }
    return counts | {f"{name}_{answer.task}": value for name, value in counts.items()}


def _metrics(prefix: str, suffix: str) -> dict[str, Metric]:
    """For all questions (``suffix`` empty) or for those of one task."""

    def f1(sums: Sums) -> np.ndarray:
        return divide(2 * sums[f"yes_right{suffix}"], sums[f"answered_yes{suffix}"] + sums[f"yes_expected{suffix}"])

    def yes_ratio(sums: Sums) -> np.ndarray:
        return divide(sums[f"answered_yes{suffix}"], sums[f"asked{suffix}"] - sums[f"invalid{suffix}"])

    accuracy = ratio(f"right{suffix}", f"asked{suffix}")
    return {f"{prefix}_accuracy": accuracy, f"{prefix}_f1": f1, f"{prefix}_yes_ratio": yes_ratio}


POPE_METRICS: dict[str, Metric] = _metrics("pope", "") | {"pope_invalid": ratio("invalid", "asked")}
for _task in YES_NO_TASKS:
    POPE_METRICS |= _metrics(f"pope_{_task}", f"_{_task}")


def pope_row(answer: Answer) -> dict[str, Any]:
    """A row of answers.jsonl."""
    return {
        "id": answer.id,
        "split": answer.split,
        "task": answer.task,
        "prompt": answer.prompt,
        "answer": answer.answer,
        "kind": answer.kind,
        "expected": answer.expected,
        "parsed": parse_yes_no(answer.answer, answer.kind),
    }
