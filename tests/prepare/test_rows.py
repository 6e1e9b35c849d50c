"""Rows of data files: every fault has its own reason, and valid rows are converted unchanged."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.common.data import chat
from stages.common.data.pictures import image_processor
from stages.prepare import rows
from stages.prepare.images import Images, load_image
from stages.prepare.picture import centre_crop, stored_picture
from stages.prepare.quarantine import BadRow
from stages.prepare.rows import MAX_LINE, RawRow, Rules, ShardRow, hash_fraction, make_row, raw_row_of_line

RULES = Rules(seed=1, max_answer_chars=20, max_pixels=10_000, image_size=32, resize=False)


def picture(size: tuple[int, int] = (40, 30), format: str = "JPEG", mode: str = "RGB", seed: int = 0) -> bytes:
    colours = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC).convert(mode).save(buffer, format=format)
    return buffer.getvalue()


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


def made(
    conversations: Any, image: Any = None, files: dict[str, bytes] | None = None, rules: Rules = RULES
) -> ShardRow:
    row = {"conversations": conversations} | ({} if image is None else {"image": image})
    return make_row("d.jsonl:7", raw_row_of_line(json.dumps(row).encode(), (files or {}).__getitem__), rules)


def reason(conversations: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(BadRow) as caught:
        made(conversations, *args, **options)
    return caught.value.reason


def line_reason(line: bytes) -> str:
    with pytest.raises(BadRow) as caught:
        make_row("d.jsonl:7", raw_row_of_line(line, {}.__getitem__), RULES)
    return caught.value.reason


def test_a_dialogue_with_two_pictures() -> None:
    files = {"甲.jpg": picture(), "b.png": picture(format="PNG")}
    dialogue = turns("<image>比较 <image>", "一样。真的！", " 好吗？\n", "")
    row, hash_fractions = made(dialogue, "甲.jpg, b.png,", files)
    assert row["id"] == "d.jsonl:7" and row["scene"] == ""
    assert row["images"] == [{"bytes": files[name], "path": name} for name in ("甲.jpg", "b.png")]
    assert row["texts"] == [
        {"task": "turn", "question": "<image>比较 <image>", "answer": ["一样。", "真的！"], "kind": "", "expected": ""},
        {"task": "turn", "question": " 好吗？\n", "answer": [""], "kind": "", "expected": ""},
    ]
    assert hash_fractions == [hash_fraction(1, data) for data in files.values()] and all(
        0 <= hash_fraction < 1 for hash_fraction in hash_fractions
    )


@pytest.mark.parametrize("image", [None, "", " , "])
def test_a_dialogue_without_pictures(image: str | None) -> None:
    assert made(turns("你好", "好。"), image) == made([{"content": "你好"}, {"content": "好。"}])
    assert made(turns("你好", "好。"), image).row["images"] == []


@pytest.mark.parametrize(
    ("conversations", "message"),
    [
        (None, "conversations missing or not a list"),
        ({"role": "user"}, "conversations missing or not a list"),
        (["你好", "好"], "turn is not an object"),
        ([{"role": "user"}, {"role": "assistant", "content": "好"}], "content missing or not a string"),
        ([{"content": 3}, {"content": "好"}], "content missing or not a string"),
        ([{"content": "你好"}, {"content": None}], "content missing or not a string"),
        ([], "no assistant turn"),
        (turns("你好"), "no assistant turn"),
        (turns("你好", "好", "再见"), "last user turn without an answer"),
        (turns("你好", "好")[::-1], "roles out of order: they must be user, assistant, user, ..."),
        ([{"role": "system", "content": "x"}, *turns("你好", "好")],
         "roles out of order: they must be user, assistant, user, ..."),
        (turns("你好", "一" * 21), "answer longer than 20 characters"),
        (turns("你好", "好<image>"), "<image> in an assistant turn"),
        (turns("你好<|im_end|>", "好"), "special token in a text"),
        (turns("你好", "好<|im_start|>user"), "special token in a text"),
        (turns("你好", "<|endoftext|>"), "special token in a text"),
        (turns("你好", "\ud83d"), "broken UTF-8"),
        (turns("\udc00", "好"), "broken UTF-8"),
        (turns("<image>你好", "好"), "number of <image> tokens differs from the number of images"),
    ],
)  # fmt: skip
def test_bad_dialogues(conversations: Any, message: str) -> None:
    assert reason(conversations) == message


def test_an_answer_of_the_maximum_length() -> None:
    assert made(turns("你好", "一" * 20)).row["texts"][0]["answer"] == ["一" * 20]


@pytest.mark.parametrize(("tokens", "images"), [(0, 1), (1, 2), (2, 1), (3, 2)])
def test_image_tokens_and_images_differ(tokens: int, images: int) -> None:
    files = {f"{i}.jpg": picture() for i in range(images)}
    dialogue = turns("<image>" * min(tokens, 1), "好", "<image>" * (tokens - 1), "好")
    assert reason(dialogue, ",".join(files), files) == "number of <image> tokens differs from the number of images"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"conversations": [', "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"9" * 5000, "broken JSON"),
        (b'["conversations"]', "line is not a JSON object"),
        (b"null", "line is not a JSON object"),
        (b'{"conversations": [], "image": ["a.jpg"]}', "image is not a string"),
        (b'{"conversations": [], "image": "\\ud800.jpg"}', "broken UTF-8"),
        ('{"conversations": "你"}'.encode()[:-3], "broken UTF-8"),
        ('{"conversations": "你"}'.encode("gbk"), "broken UTF-8"),
        (b" " * (MAX_LINE + 1), f"line longer than {MAX_LINE} bytes"),
    ],
)
def test_bad_lines(line: bytes, message: str) -> None:
    assert line_reason(line) == message


def test_a_byte_order_mark_is_accepted() -> None:
    line = json.dumps({"conversations": turns("你好", "好")}).encode("utf-8-sig") + b"\r\n"
    assert make_row("x", raw_row_of_line(line, {}.__getitem__), RULES).row["texts"]


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    )


def pixels(size: tuple[int, int]) -> bytes:
    return picture(size, "PNG", "1")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a picture (JPEG, PNG, WebP, GIF, BMP, TIFF)"),
        (b"<html>404</html>", "not a picture (JPEG, PNG, WebP, GIF, BMP, TIFF)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
         "not a picture (JPEG, PNG, WebP, GIF, BMP, TIFF)"),
        (picture()[:-200], "picture that cannot be decoded"),
        (picture(format="PNG")[:-100], "picture that cannot be decoded"),
        (pixels((101, 100)), "picture with more than 10000 pixels"),
        (bomb(), "picture with more than 10000 pixels"),
        (pixels((10, 99)), "picture too narrow: resized, it would have too many pixels"),
    ],
)  # fmt: skip
def test_bad_pictures(data: bytes, message: str) -> None:
    with pytest.raises(BadRow) as caught:
        made(turns("<image>", "好"), "a.jpg", {"a.jpg": data})
    assert (caught.value.reason, caught.value.image) == (message, "a.jpg")


def test_pictures_of_the_maximum_size() -> None:
    for size in ((100, 100), (10, 97)):
        assert made(turns("<image>", "好"), "a.png", {"a.png": pixels(size)}).row["images"]


def test_too_many_pixels_are_found_in_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pixels((101, 100))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(BadRow, match="picture with more than 10000 pixels"):
        stored_picture(data, 10_000, 32, False)


def test_pictures_of_a_row_have_a_total_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.prepare.rows._MAX_STORED", 2 * len(picture()))
    names = "a.jpg,a.jpg,a.jpg"
    assert made(turns("<image>" * 2, "好"), names[:11], {"a.jpg": picture()}).row["images"]
    assert reason(turns("<image>" * 3, "好"), names, {"a.jpg": picture()}).startswith("pictures of more than")


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", **options)
    return buffer.getvalue()


def stored(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(stored_picture(data, 1_000_000, 32, True)))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA"])
def test_a_resized_picture_is_the_centre_crop_of_clip(mode: str) -> None:
    image = Image.open(io.BytesIO(picture((99, 62), "PNG", mode)))
    clip = image_processor(32)([image.convert("RGB")], return_tensors="np", do_rescale=False, do_normalize=False)
    clip = clip["pixel_values"][0].transpose(1, 2, 0).astype(np.uint8)
    kept = stored(picture((99, 62), "PNG", mode))
    assert (kept.format, kept.mode, kept.size) == ("JPEG", "RGB", (32, 32))
    assert np.array_equal(np.asarray(kept), np.asarray(Image.open(io.BytesIO(jpeg(Image.fromarray(clip), quality=95,
                                                                                  subsampling=0)))))  # fmt: skip
    assert np.array_equal(np.asarray(centre_crop(image.convert("RGB"), 32)), clip)


def test_pictures_that_are_stored_unchanged() -> None:
    square, wide = picture((32, 32)), picture((40, 30))
    assert stored_picture(square, 10_000, 32, True) == square
    assert stored_picture(wide, 10_000, 32, False) == wide
    assert stored_picture(wide, 10_000, 32, True) != wide
    png = picture((32, 32), "PNG")
    assert stored_picture(png, 10_000, 32, True)[:3] == b"\xff\xd8\xff"


def test_exif_is_ignored_and_dropped() -> None:
    image = Image.open(io.BytesIO(picture((60, 40), "PNG")))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    turned = stored_picture(jpeg(image, exif=exif, comment=b"comment", quality=95), 10_000, 32, True)
    assert turned == stored_picture(jpeg(image, quality=95), 10_000, 32, True)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_the_placeholder_of_parquet_is_not_a_picture(format: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format=format)
    black = buffer.getvalue()
    row = make_row("x", RawRow(turns("你好", "好"), [""], [black].__getitem__), RULES).row
    assert row["images"] == []
    row = make_row("x", RawRow(turns("<image>", "好"), [""], [black].__getitem__), RULES).row
    assert row["images"] == [{"bytes": black, "path": "x-0"}]
    small = io.BytesIO()
    Image.new("RGB", (8, 7)).save(small, format=format)
    for other in (picture((8, 8)), picture(), small.getvalue(), b"", black[:45]):
        with pytest.raises(BadRow, match="number of <image> tokens"):
            make_row("x", RawRow(turns("你好", "好"), [""], [other].__getitem__), RULES)


def load_reason(images: Images | None, name: str) -> str:
    with pytest.raises(BadRow) as caught:
        load_image(images, name)
    assert caught.value.image == name
    return caught.value.reason


def test_pictures_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "images"
    (folder / "子").mkdir(parents=True)
    (folder / "子/图.jpg").write_bytes(b"there")
    (folder / "link.jpg").symlink_to(folder / "子/图.jpg")  # as the Hub's cache and DVC's have them
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    os.mkfifo(folder / "pipe.jpg")
    images = Images(folder, None)
    assert load_image(images, "子/图.jpg") == load_image(images, ".\\子\\图.jpg") == load_image(images, "link.jpg")
    assert load_reason(images, "图.jpg") == load_reason(images, "子") == load_reason(images, "子/图.jpg/x.jpg")
    assert load_reason(images, "长" * 200) == load_reason(images, "pipe.jpg") == "image missing"
    assert load_reason(images, "../secret.jpg") == "image path outside the folder"
    assert load_reason(images, str(tmp_path / "secret.jpg")) == "image path outside the folder"
    assert load_reason(None, "a.jpg") == "image named, but no folder or zip of images given"
    monkeypatch.setattr("stages.prepare.images._MAX_FILE", 4)
    assert load_reason(images, "link.jpg") == "image file larger than 4 bytes"
    monkeypatch.setattr(Path, "stat", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert load_reason(images, "link.jpg") == "image cannot be read"


def test_special_tokens_are_those_of_the_chat_template() -> None:
    """They are repeated in rows.py because importing stages.common.data.chat would load transformers."""
    assert set(rows._SPECIAL) == set(chat.SPECIAL_TOKENS) - {chat.IMAGE} and rows._IMAGE == chat.IMAGE
