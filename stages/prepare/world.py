"""Draws the built-in world into shards, on any number of processes, with the same bytes every time."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from PIL import Image
from tqdm import tqdm

from stages.common.errors import InputError
from stages.common.params import DataParams, Params
from stages.common.shards import write_shard
from stages.common.world import BACKGROUNDS, COLOURS, KINDS, Group, Scene
from stages.prepare.draw import compose
from stages.prepare.scene import SPLITS, group_boxes, relations_of, sample_scene
from stages.prepare.wording import texts_of

FIXED_SCENES = Path("data/eval/scenes.yaml")


class Shard(NamedTuple):
    split: str
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:05d}.parquet"


def write_world(params: Params, folder: Path) -> dict[str, int]:
    """Write all shards; returns the number of scenes per split. Memory: one shard per process."""
    shards = list(plan_shards(params.data))
    processes = min(params.machine.processes or os.cpu_count() or 1, len(shards))
    # spawn, not fork: the parent has threads (pyarrow), and a forked copy of their locks can hang.
    with (
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
        tqdm(total=sum(shard.stop - shard.start for shard in shards), unit="scene", desc="prepare") as bar,
    ):
        jobs = [pool.submit(_write_shard, params.data, params.seed, shard, folder) for shard in shards]
        for shard, job in zip(shards, jobs, strict=True):
            job.result()
            bar.update(shard.stop - shard.start)
    fixed = fixed_scenes(FIXED_SCENES)
    write_shard(folder / "fixed-00000.parquet", (_row(scene, params.data, params.seed) for scene in fixed))
    counts = {split: getattr(params.data, f"{split}_scenes") for split in SPLITS}
    return counts | {"fixed": len(fixed)}


def plan_shards(data: DataParams) -> Iterator[Shard]:
    for split in SPLITS:
        total = getattr(data, f"{split}_scenes")
        for number, start in enumerate(range(0, total, data.shard_scenes)):
            yield Shard(split, number, start, min(start + data.shard_scenes, total))


def _write_shard(data: DataParams, seed: int, shard: Shard, folder: Path) -> None:
    scenes = (sample_scene(data, seed, shard.split, index) for index in range(shard.start, shard.stop))
    write_shard(folder / shard.name, (_row(scene, data, seed) for scene in scenes))


def _row(scene: Scene, data: DataParams, seed: int) -> dict[str, Any]:
    picture = compose(scene, data.image_size, random.Random(f"{seed}/{scene.id}/picture"))
    texts = texts_of(scene, random.Random(f"{seed}/{scene.id}/texts"))
    return {
        "id": scene.id,
        "image": {"bytes": _png(picture), "path": f"{scene.id}.png"},
        "scene": scene.to_json(),
        "texts": [asdict(text) for text in texts],
    }


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def fixed_scenes(path: Path) -> list[Scene]:
    """The hand-written evaluation scenes. Raises InputError that names the scene and what is wrong with it."""
    scenes = []
    for name, raw in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        where = f"{path}: scene {name}"
        if raw["background"] not in BACKGROUNDS:
            raise InputError(f"{where}: no background '{raw['background']}'; choose one of {', '.join(BACKGROUNDS)}")
        groups = []
        for item in raw["groups"]:
            if item["kind"] not in KINDS or item["colour"] not in COLOURS:
                raise InputError(f"{where}: the world has no {item['colour']} {item['kind']}")
            cells = [tuple(cell) for cell in item["cells"]]
            groups.append(Group(**{k: item[k] for k in ("kind", "colour")}, **group_boxes(cells, item["side"])))
        groups.sort(key=lambda group: (group.row, group.column))
        related = tuple(raw["relation"]) if raw.get("relation") else None
        scenes.append(Scene(name, raw["background"], tuple(groups), relations_of(groups, related)))
    return scenes
