"""A small built-in world and a checkpoint's answers about it, as the stages prepare and answer write them."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from stages.common.config.params import Params
from stages.common.data.shards import write_shard
from stages.common.world.scene import Scene
from stages.common.world.vocabulary import KINDS
from stages.evaluate.files import (
    FAR_FIRST,
    TEXT_TASKS,
    WORLD_PROMPTS,
    YES_NO_TASKS,
    Answer,
    TextLosses,
    answers_folder,
    write_answers,
    write_hidden,
    write_losses,
    write_model,
    write_provenance,
)
from stages.prepare.scene import sample_scene
from stages.prepare.wording import Prior, texts_of

ROOT = Path(__file__).parents[2]
WIDTH, LAYERS = 32, 2  # of the hidden states


def write_world(params: Params, sizes: dict[str, int]) -> dict[str, list[dict]]:
    """Shards of each split in data/prepared of the current folder; their rows."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    shutil.copytree(ROOT / "data/eval", "data/eval", dirs_exist_ok=True)
    Path("data/prepared").mkdir(parents=True)
    rows = {split: [] for split in sizes}
    for split, size in sizes.items():
        prior = Prior.of(params.data, 0.05 if split == "train" else 0.0)
        for index in range(size):
            scene = sample_scene(params.data, params.seed, "test" if split == "fixed" else split, index)
            texts = [
                {
                    "task": t.task,
                    "question": t.question,
                    "answer": list(t.answer),
                    "kind": t.kind,
                    "expected": t.expected,
                    "claims": [list(claims) for claims in t.claims],
                }
                for t in texts_of(scene, prior, random.Random(f"{split}/{index}"))
            ]
            images = [{"bytes": buffer.getvalue(), "path": "x.png"}]
            rows[split].append({"id": scene.id, "images": images, "scene": scene.to_json(), "texts": texts})
        write_shard(Path(f"data/prepared/{split}-00000.parquet"), rows[split])
    return rows


def text_of(row: dict, task: str) -> str:
    return next("".join(text["answer"]) for text in row["texts"] if text["task"] == task)


def write_checkpoint(name: str, rows: dict[str, list[dict]], folder: Path | None = None, judged: str = "test") -> None:
    """Answers about scenes of split ``judged``, of a checkpoint that describes every second scene as it is, and the
    others as the one before."""
    folder = folder or answers_folder(name)
    folder.mkdir(parents=True)
    write_answers(folder, _answers(rows, judged))
    own = rows[judged]
    write_losses(folder, [losses_of(own, number, task) for task in TEXT_TASKS for number in range(len(own))])
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(len(KINDS), WIDTH))
    for split in ("validation", "test") if judged == "test" else ():
        present = np.array([[kind in Scene.from_json(row["scene"]).kinds for kind in KINDS] for row in rows[split]])
        noise = rng.normal(size=(len(present), LAYERS + 1, WIDTH))
        write_hidden(folder, split, noise + (present @ directions)[:, None])
    write_model(folder, name, 1_000_000, 2_000_000)
    write_provenance(folder, None, {"torch": "2.13.0"})


def _answers(rows: dict[str, list[dict]], judged: str) -> Iterator[Answer]:
    for split in (judged, "fixed"):
        for task in (*TEXT_TASKS, FAR_FIRST) if split == judged else TEXT_TASKS:
            size = len(rows[split]) // 3 if task == FAR_FIRST else len(rows[split])
            for number, row in enumerate(rows[split][:size]):
                text = text_of(rows[split][number - number % 2], task)
                yield Answer(row["id"], split, task, WORLD_PROMPTS[task], text, text_of(row, task))
    for row in rows[judged]:
        for text in row["texts"]:
            if text["task"] in YES_NO_TASKS:
                yield Answer(
                    row["id"], judged, text["task"], text["question"], "有。", "", text["kind"], text["expected"]
                )


def losses_of(rows: list[dict], number: int, task: str) -> TextLosses:
    """Losses by character: 1 nat with the own picture, 1.5 with another one, 2 with a blind one."""
    text = text_of(rows[number], task)
    starts = np.append(np.arange(len(text)), len(text)).astype(np.int32)
    ends = np.append(starts[1:], len(text)).astype(np.int32)
    own = np.ones(len(starts), np.float32)
    other = rows[(number + len(rows) // 2) % len(rows)]["id"]
    return TextLosses(rows[number]["id"], task, text, starts, ends, own, 1.5 * own, 2 * own, other)
