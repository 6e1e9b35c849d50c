"""Runs of the conversion of data files, and what they wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.common.config.params import Params, load_params
from stages.common.data.shards import read_rows
from stages.prepare.files import RowSource, write_files

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "validation", "test")


def parameters(processes: int = 1, seed: int = 1, **data: Any) -> Params:
    params = load_params(ROOT / "tests/params.yaml")
    small = {"source": "minimind", "resize": False, "shard_scenes": 20, "validation_scenes": 20, "test_scenes": 20}
    return params.model_copy(
        update={
            "seed": seed,
            "data": params.data.model_copy(update=small | data),
            "machine": params.machine.model_copy(update={"processes": processes}),
        }
    )


def write(
    tmp_path: Path,
    sft: RowSource,
    pretrain: RowSource | None = None,
    photographs: Sequence[Path] = (),
    **options: Any,
) -> dict[str, Any]:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    return write_files(pretrain, sft, photographs, parameters(**options), out, tmp_path / "reports/quarantine.jsonl")


def rows_of(tmp_path: Path, split: str) -> list[dict[str, Any]]:
    return list(read_rows(split, ["id", "images", "texts"], root=tmp_path / "out"))


def pictures_of(folder: Path, split: str) -> set[bytes]:
    return {image["bytes"] for row in rows_of(folder, split) for image in row["images"]}


def quarantined(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "reports/quarantine.jsonl").read_text("utf-8").splitlines()]
