"""Photographs become rows without texts of split fixed; one that cannot be used is a one-line error."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from stages.common.core.errors import InputError
from stages.prepare.files import RowSource
from tests.prepare.file_runs import pictures_of, rows_of, write
from tests.prepare.file_sources import PICTURES


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("resize", [False, True])
def test_photographs(tmp_path: Path, source: Path, resize: bool) -> None:
    photographs = [source / "images/图2.jpg", source / "images/图11.jpg", source / "images/图1.jpg"]
    sft = RowSource(source / "sft.jsonl", source / "images")
    assert write(tmp_path, sft, photographs=photographs, resize=resize)["photographs"] == 3
    rows = rows_of(tmp_path, "fixed")
    assert [row["id"] for row in rows] == ["图1", "图11", "图2"] and not any(row["texts"] for row in rows)
    assert [row["images"][0]["path"] for row in rows] == ["图1.jpg", "图11.jpg", "图2.jpg"]
    sizes = {Image.open(io.BytesIO(row["images"][0]["bytes"])).size for row in rows}
    assert sizes == {(96, 96) if resize else (24, 20)}
    assert {Image.open(io.BytesIO(data)).size for data in pictures_of(tmp_path, "train")} == sizes


def test_bad_photographs(tmp_path: Path, source: Path) -> None:
    sft = RowSource(source / "sft.jsonl", source / "images")
    (tmp_path / "bad.jpg").write_bytes(PICTURES[0][:-50])
    (tmp_path / "图1.png").write_bytes(PICTURES[0])
    for photographs, message in (
        ([tmp_path / "bad.jpg"], r"bad\.jpg cannot be used: picture that cannot be decoded; replace it"),
        ([tmp_path / "none.jpg"], r"none\.jpg cannot be read: No such file"),
        ([tmp_path / "图1.png", source / "images/图1.jpg"], "two photographs are called 图1; rename one"),
    ):
        with pytest.raises(InputError, match=message):
            write(tmp_path, sft, photographs=photographs)
    with pytest.raises(InputError, match=r"图1\.jpg cannot be used: picture with more than 400 pixels"):
        write(tmp_path, sft, photographs=[source / "images/图1.jpg"], max_pixels=400)
