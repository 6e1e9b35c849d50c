"""A small run for the report: two scenes, a chain of two phases and a control, with made-up figures."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from stages.common.config.params import Params
from stages.common.data.shards import write_shard
from stages.common.world.scene import Group, Scene

ROOT = Path(__file__).resolve().parents[2]
BOX = ((0.1, 0.1, 0.4, 0.4),)
SCENES = (
    Scene("小狗-dog", "seaside", (Group("dog", "red", 1, 1, 1, BOX), Group("ball", "blue", 1, 1, 2, BOX)), ()),
    Scene("cat", "room", (Group("cat", "black", 2, 1, 1, BOX), Group("panda", None, 1, 0, 2, BOX, near=False)), ()),
)
PHASES = {
    "short": {"after": "pretrain", "max_len": 32, "target_tokens": 1000, "match": None},
    "long": {"after": "sft-short", "max_len": None, "target_tokens": 2000, "match": None},
    "direct": {"after": "pretrain", "max_len": None, "target_tokens": None, "match": "long"},
}
COUNTED = {"short": 1003, "long": 2001, "direct": 3004}
RESAMPLES = 200
PROVENANCE = {
    "torch": "2.7.1",
    "transformers": "4.55.0",
    "processor": "Test CPU",
    "precision": "fp32",
    "compiled": False,
    "processes": 1,
}
CHAIR_I = {"pretrain": 0.30, "sft-short": 0.20, "sft-long": 0.10, "sft-direct": 0.20}


def mention(answer: str, word: str, kind: str, **fields: Any) -> dict[str, Any]:
    start = answer.index(word)
    base = {"kind": kind, "word": word, "start": start, "end": start + len(word), "colour": None}
    return base | {"supported": True, "colour_right": None} | fields


class Inputs:
    """The files of the other stages under ``root``; a test changes some of them and loads the run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        raw = yaml.safe_load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"))
        raw["sft"]["phases"] = {name: phase | {"fit": None, "shuffle": None} for name, phase in PHASES.items()}
        raw["sft"]["epochs"] = 2
        self.raw = raw
        self.write_pictures(SCENES)
        for name in ("pretrain", *(f"sft-{phase}" for phase in PHASES)):
            self.write_checkpoint(name)

    @property
    def params(self) -> Params:
        return Params.model_validate(self.raw)

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def write_pictures(self, scenes: tuple[Scene, ...]) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (200, 30, 30)).save(buffer, "PNG")
        image = {"bytes": buffer.getvalue(), "path": "x.png"}
        folder = self.root / "data/prepared"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [{"id": s.id, "images": [image], "scene": s.to_json(), "texts": []} for s in scenes]
        write_shard(folder / "fixed-00000.parquet", rows)

    def write_checkpoint(self, name: str) -> None:
        phase = name.removeprefix("sft-")
        tokens = 2 * COUNTED.get(phase, 500)
        self.write_loss(name, [3.0, 1.5, 1.0, 0.75], tokens)
        self.write_metrics(
            name, {"chair_i": (CHAIR_I.get(name, 0.15), 0.02), "precision": (0.9, 0.02), "recall": (0.8, 0.02)}
        )
        if name != "pretrain":
            summary = {"phase": phase, "samples": 50, "target_tokens": tokens // 2, "dropped": 3, "max_len": 32}
            match = self.raw["sft"]["phases"][phase]["match"]
            summary |= {"longest_answer": 30, "match": match, "chain_target_tokens": tokens // 2}
            self.write(f"data/sft/{phase}/summary.json", json.dumps(summary))
        self.write_answers(name, {scene.id: self.answer("图中有东西。") for scene in SCENES})

    def write_loss(self, name: str, losses: Sequence[float], tokens: int, epochs: int = 2) -> None:
        """A log of points at equal distances, the last at ``tokens`` and at the end of the last epoch."""
        rows = [
            f"{step},{epochs * step / len(losses)},{tokens * step // len(losses)},{loss},0.001,1.0"
            for step, loss in enumerate(losses, start=1)
        ]
        self.write(
            f"reports/loss/{name}.csv", "step,epoch,target_tokens,loss,learning_rate,grad_norm\n" + "\n".join(rows)
        )

    def add_validation_loss(self, name: str, losses: dict[int, float]) -> None:
        """``losses``: at numbers of target tokens, before training and at the ends of epochs."""
        path = self.root / f"reports/loss/{name}.csv"
        header, *rows = path.read_text(encoding="utf-8").splitlines()
        rows = [f"{row}," for row in rows]
        rows += [f"{epoch},{epoch}.0,{tokens},,,,{loss}" for epoch, (tokens, loss) in enumerate(losses.items())]
        self.write(f"reports/loss/{name}.csv", "\n".join([f"{header},validation_loss", *rows]) + "\n")

    def write_metrics(
        self,
        name: str,
        figures: dict[str, tuple[float | None, float]],
        series: dict[str, list[dict[str, Any]]] | None = None,
        split: str = "test",
    ) -> None:
        """``figures``: value and half the width of its interval.

        Resamples of the checkpoints are correlated, as they are if all draw the same scenes.
        """
        intervals = {
            key: {"value": value, "low": value and value - spread, "high": value and value + spread}
            for key, (value, spread) in figures.items()
        }
        metrics = {"checkpoint": name, "parameters": 3_400_000, "parameters_vision": 1_900_000, "scenes": 40}
        metrics |= {"split": split, "intervals": intervals, "series": series or {}}
        self.write(f"reports/evaluation/{name}/metrics.json", json.dumps(metrics))
        common, own = np.random.default_rng(0), np.random.default_rng(list(name.encode()))
        of_series = {
            f"{name}/{point['at']}/{key}": (ends["value"], ends["value"] - ends["low"])
            for name, points in (series or {}).items()
            for point in points
            for key, ends in point["intervals"].items()
            if ends["low"] is not None
        }
        columns = {
            key: value
            + spread / 1.96 * (0.8 * common.standard_normal(RESAMPLES) + 0.6 * own.standard_normal(RESAMPLES))
            for key, (value, spread) in (figures | of_series).items()
            if value is not None
        }
        table = pa.table({key: column.astype(np.float32) for key, column in columns.items()})
        pq.write_table(table, self.root / f"reports/evaluation/{name}/resamples.parquet")

    def write_provenance(self, name: str, training: dict[str, Any] | None, **answer: Any) -> None:
        """``training``, ``answer``: what differs from the usual software and hardware."""
        value = {"training": None if training is None else PROVENANCE | training, "answer": PROVENANCE | answer}
        self.write(f"reports/evaluation/{name}/provenance.json", json.dumps(value))

    @staticmethod
    def answer(text: str, mentions: tuple[dict[str, Any], ...] = (), missed: tuple[str, ...] = ()) -> dict[str, Any]:
        return {"answer": text, "mentions": list(mentions), "missed": list(missed)}

    def write_answers(self, name: str, answers: dict[str, dict[str, Any]], split: str = "test") -> None:
        """The same answers as descriptions and as captions, after a test scene and a yes/no question."""
        rest = {"split": "fixed", "prompt": "请描述。", "reference": "参考。"}
        rows: list[dict[str, Any]] = [
            {
                "id": "test-1",
                "task": "random",
                "split": split,
                "prompt": "有鱼吗？",
                "answer": "没有。",
                "parsed": "no",
            },
            {"id": "test-1", "task": "description", **rest, **self.answer("测试。"), "split": split},
        ]
        rows += [
            {"id": key, "task": task, **rest, **value}
            for task in ("caption", "description")
            for key, value in answers.items()
        ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.write(f"reports/evaluation/{name}/answers.jsonl", text)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path)
