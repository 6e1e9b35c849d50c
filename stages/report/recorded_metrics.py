"""Which metrics a recorded run keeps, and what they are called in the tables of README.md, README_zh.md and docs/."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

RESULTS = Path("benchmarks/results")
Language = Literal["en", "zh"]


class RecordedMetric(NamedTuple):
    """``scale`` turns the recorded value into the one shown: 100 for shares, shown in percent."""

    title: str
    title_zh: str
    scale: float = 100.0
    decimals: int = 1

    def named(self, language: Language) -> str:
        return self.title_zh if language == "zh" else self.title


METRICS = {
    "chair_i": RecordedMetric("CHAIR-i: wrong mentions, %", "CHAIR-i：错误提及占比，%"),
    "hallucinated": RecordedMetric("hallucinated mentions, %", "其中幻觉，%"),
    "misnamed": RecordedMetric("misnamed mentions, %", "其中误称，%"),
    "chair_s": RecordedMetric("CHAIR-s, %", "CHAIR-s，%"),
    "precision": RecordedMetric("precision, %", "精确率，%"),
    "recall": RecordedMetric("recall, %", "召回率，%"),
    "f1": RecordedMetric("F1, %", "F1，%"),
    "colour_accuracy": RecordedMetric("colour accuracy, %", "颜色准确率，%"),
    "count_accuracy": RecordedMetric("count accuracy, %", "数量准确率，%"),
    "position_accuracy": RecordedMetric("position accuracy, %", "位置准确率，%"),
    "pope_accuracy": RecordedMetric("POPE accuracy, %", "POPE 准确率，%"),
    "two_alternative": RecordedMetric("two-alternative accuracy, %", "二选一准确率，%"),
    "swap_gap_object": RecordedMetric("image-swap gap, object words, nats", "换图损失差，物体词，nat", 1.0, 2),
    "blind_gap_object": RecordedMetric("blind gap, object words, nats", "盲图损失差，物体词，nat", 1.0, 2),
    "probe_auc": RecordedMetric("hidden-state probe, AUC", "隐状态探针，AUC", 1.0, 3),
    "length": RecordedMetric("length, characters", "长度，字符", 1.0, 0),
    "jump": RecordedMetric("change of the loss at epoch ends, nats", "轮末损失的变化，nat", 1.0, 3),
}
# Rows of the README's table.
CHIEF = (
    "chair_i",
    "hallucinated",
    "misnamed",
    "precision",
    "recall",
    "pope_accuracy",
    "two_alternative",
    "length",
)
