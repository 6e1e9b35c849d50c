"""Writes the built-in world to shards, on any number of processes, with the same bytes for the same parameters."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from tqdm import tqdm

from stages.common.config.data import DataParams
from stages.common.config.params import Params
from stages.common.core.errors import InputError
from stages.common.data.shards import write_shard
from stages.common.world.scene import Group, Scene
from stages.common.world.vocabulary import ATTRIBUTION, BACKGROUNDS, KINDS, KINDS_FILE, PAINTS
from stages.prepare.drawing.compose import compose
from stages.prepare.processes import end_with_parent
from stages.prepare.scene import SPLITS, group_boxes, relations_of, sample_scene, signature
from stages.prepare.wording import Prior, texts_of

FIXED_SCENES = Path("data/eval/scenes.yaml")
_METADATA = {b"attribution": ATTRIBUTION.encode()}
_NEAR_SIDE = 0.2  # side of a hand-written object from which on it is near


class Shard(NamedTuple):
    """The scenes ``start`` to ``stop`` (exclusive) of ``split``."""

    split: str
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:05d}.parquet"


def write_world(params: Params, folder: Path) -> dict[str, int]:
    """Write all shards; returns the number of scenes per split. Memory: one shard per process. Raises InputError."""
    if params.data.kinds > len(KINDS):
        raise InputError(
            f"params.yaml: data.kinds: {params.data.kinds} kinds, and {KINDS_FILE.name} has {len(KINDS)}; lower it"
        )
    fixed = fixed_scenes(FIXED_SCENES)
    taken = frozenset(map(signature, fixed))
    shards = list(plan_shards(params.data))
    processes = min(params.machine.processes or os.cpu_count() or 1, len(shards))
    # spawn, not fork: the parent has threads (pyarrow), and a forked copy of their locks can hang.
    with (
        ProcessPoolExecutor(processes, get_context("spawn"), end_with_parent) as pool,
        tqdm(total=sum(shard.stop - shard.start for shard in shards), unit="scene", desc="prepare") as bar,
    ):
        jobs = [pool.submit(_write_shard, params.data, params.seed, taken, shard, folder) for shard in shards]
        try:
            for shard, job in zip(shards, jobs, strict=True):
                job.result()
                bar.update(shard.stop - shard.start)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # otherwise the error would be raised only after all other shards
            raise
    rows = (_row(scene, "fixed", params.data, params.seed) for scene in fixed)
    write_shard(folder / "fixed-00000.parquet", rows, _METADATA)
    counts = {split: getattr(params.data, f"{split}_scenes") for split in SPLITS}
    return counts | {"fixed": len(fixed)}


def plan_shards(data: DataParams) -> Iterator[Shard]:
    for split in SPLITS:
        total = getattr(data, f"{split}_scenes")
        for number, start in enumerate(range(0, total, data.shard_scenes)):
            yield Shard(split, number, start, min(start + data.shard_scenes, total))


def _write_shard(data: DataParams, seed: int, taken: frozenset[str], shard: Shard, folder: Path) -> None:
    scenes = (sample_scene(data, seed, shard.split, index, taken) for index in range(shard.start, shard.stop))
    write_shard(folder / shard.name, (_row(scene, shard.split, data, seed) for scene in scenes), _METADATA)


def _row(scene: Scene, split: str, data: DataParams, seed: int) -> dict[str, Any]:
    picture = compose(scene, data.image_size, random.Random(f"{seed}/{scene.id}/picture"))
    # Test and validation texts are true.
    prior = Prior.of(data, data.unsupported if split == "train" else 0.0)
    texts = texts_of(scene, prior, random.Random(f"{seed}/{scene.id}/texts"))
    return {
        "id": scene.id,
        "images": [{"bytes": _png(picture), "path": f"{scene.id}.png"}],
        "scene": scene.to_json(),
        "texts": list(map(vars, texts)),
    }


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


class _FixedGroup(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: str
    colour: str | None = None
    cells: list[tuple[Literal[0, 1, 2], Literal[0, 1, 2]]] = Field(min_length=1, max_length=3)
    side: float = Field(gt=0, le=1)


class _FixedScene(BaseModel):
    model_config = ConfigDict(extra="forbid")
    background: str
    groups: list[_FixedGroup] = Field(min_length=1)
    relation: tuple[str, Literal["on", "under"], str] | None = None

    @model_validator(mode="after")
    def _can_be_drawn(self) -> _FixedScene:
        if self.background not in BACKGROUNDS:
            raise ValueError(f"unknown background '{self.background}'; choose one of {', '.join(BACKGROUNDS)}")
        kinds = [group.kind for group in self.groups]
        for group in self.groups:
            if group.kind not in KINDS:
                raise ValueError(f"the world has no {group.kind}")
            kind = KINDS[group.kind]
            if group.colour not in (PAINTS if kind.recolour else (kind.colour,)):
                raise ValueError(f"a {group.kind} cannot be {group.colour or 'without a colour'}")
            if kinds.count(group.kind) > 1:
                raise ValueError(f"two groups of {group.kind}; give one group all the cells")
            if len({row for row, _ in group.cells}) > 1:
                raise ValueError(f"cells of {group.kind} are in different rows")
        cells = [cell for group in self.groups for cell in group.cells]
        if len(set(cells)) < len(cells):
            raise ValueError("two objects in the same cell")
        for kind in self.relation[::2] if self.relation else ():
            if kind not in kinds:
                raise ValueError(f"relation names {kind}, which is not in the scene")
        return self


def fixed_scenes(path: Path) -> list[Scene]:
    """The hand-written evaluation scenes. Raises InputError with the scene's name and the fault."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not raw:
        raise InputError(f"{path} holds no scene; add at least one")
    try:
        entries = TypeAdapter(dict[str, _FixedScene]).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        scene, *where = map(str, first["loc"] or ["?"])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: scene {scene}: {'.'.join(where) + ': ' if where else ''}{message}") from None
    scenes = []
    for name, entry in entries.items():
        groups = [
            Group(group.kind, group.colour, **group_boxes(list(group.cells), group.side), near=group.side >= _NEAR_SIDE)
            for group in entry.groups
        ]
        groups.sort(key=lambda group: (not group.near, group.row, group.column))
        scenes.append(Scene(name, entry.background, tuple(groups), relations_of(groups, entry.relation)))
    return scenes
