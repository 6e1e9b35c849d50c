"""Small worlds that several tests use."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from stages.common.config.params import Params, load_params
from stages.common.world.scene import Scene
from stages.prepare.scene import sample_scene
from stages.prepare.wording import Prior, Text, texts_of

ROOT = Path(__file__).parents[2]


def small(processes: int, scenes: int = 30) -> Params:
    params = load_params(ROOT / "tests/params.yaml")
    sizes = {"train_scenes": scenes, "validation_scenes": 8, "test_scenes": 8, "shard_scenes": 10, "image_size": 48}
    return params.model_copy(
        update={
            "data": params.data.model_copy(update=sizes),
            "machine": params.machine.model_copy(update={"processes": processes}),
        }
    )


DATA = load_params(ROOT / "tests/params.yaml").data
PRIOR = Prior.of(DATA, 0.0)


@cache
def scenes(split: str, count: int = 400, **changes: object) -> tuple[Scene, ...]:
    data = DATA.model_copy(update=changes)
    return tuple(sample_scene(data, 1, split, index) for index in range(count))


def texts(scene: Scene, prior: Prior = PRIOR) -> list[Text]:
    return texts_of(scene, prior, random.Random(scene.id))
