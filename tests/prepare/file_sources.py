"""Data files of both formats, with pictures in a folder or in a zip archive, and what their rows hold."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.prepare.test_archive import make_zip


def picture(seed: int) -> bytes:
    colours = np.random.default_rng(seed).integers(0, 255, (3, 3, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).resize((24, 20)).save(buffer, format="JPEG")
    return buffer.getvalue()


PICTURES = [picture(seed) for seed in range(60)]
BLACK = io.BytesIO()
Image.new("RGB", (8, 8)).save(BLACK, format="JPEG")


def dialogue(number: int, pictures: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": "<image>" * pictures + f"第{number}问"},
        {"role": "assistant", "content": f"答{number}。再答。"},
    ]


def pictures_of_row(number: int) -> list[int]:
    """Pictures of row ``number``: one, shared by several rows; sometimes two; sometimes none."""
    if number % 10 == 9:
        return []
    return [number % 60, (number + 7) % 60] if number % 10 == 4 else [number % 60]


def line(number: int, **changes: Any) -> bytes:
    names = ",".join(f"图{index}.jpg" for index in pictures_of_row(number))
    row = (
        {"conversations": dialogue(number, len(pictures_of_row(number)))}
        | ({"image": names} if names else {})
        | changes
    )
    return json.dumps(row, ensure_ascii=False).encode()


def jsonl(path: Path, rows: int, broken: dict[int, bytes] | None = None, start: int = 0) -> Path:
    lines = [(broken or {}).get(number, line(start + number - 1)) for number in range(1, rows + 1)]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def folder_of_images(path: Path) -> Path:
    path.mkdir()
    for number, data in enumerate(PICTURES):
        (path / f"图{number}.jpg").write_bytes(data)
    return path


def zip_of_images(path: Path) -> Path:
    return make_zip(path, {f"pretrain_images/图{number}.jpg": data for number, data in enumerate(PICTURES)})


def parquet(path: Path, rows: int, lists: bool, group: int = 1000, **columns: Any) -> Path:
    """Both shapes: strings with one picture or placeholder each, or lists with lists of pictures."""
    pictures = [pictures_of_row(number) if lists else pictures_of_row(number)[:1] for number in range(rows)]
    dialogues = [dialogue(number, len(indices)) for number, indices in enumerate(pictures)]
    if lists:
        table = pa.table({"conversations": dialogues, "image_bytes": [[PICTURES[i] for i in row] for row in pictures]})
    else:
        table = pa.table(
            {
                "conversations": [json.dumps(turns, ensure_ascii=False) for turns in dialogues],
                "image_bytes": [PICTURES[row[0]] if row else BLACK.getvalue() for row in pictures],
                "image_names": [f"图{row[0]}.jpg" if row else "black.jpg" for row in pictures],
            }
        )
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, path, row_group_size=group)
    return path
