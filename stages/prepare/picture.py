"""Checks a picture's bytes by decoding them, and makes what a shard holds of it."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from stages.common.data.shards import to_rgb
from stages.prepare.quarantine import BadRow

# Pillow reads much more, some of it by calling other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_DARK = 15  # JPEG's black is not always 0


def stored_picture(data: bytes, max_pixels: int, side: int, resize: bool) -> bytes:
    """``data`` itself or, if ``resize``, the middle square of the picture, ``side`` pixels wide, as a JPEG.

    The square is the one that CLIP's preprocessing makes; neither turns a picture the way its EXIF data says. Raises
    BadRow for what cannot be decoded to its last byte, or would take too much memory.
    """
    format, image = _decoded(data, max_pixels, side)
    if not resize or (format == "JPEG" and image.size == (side, side)):
        return data
    square = middle_square(image, side)
    square.info.clear()  # Pillow would carry a comment over
    buffer = io.BytesIO()
    square.save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def middle_square(image: Image.Image, side: int) -> Image.Image:
    """Shortest edge to ``side``, then the middle; an odd pixel is cut off on the far side."""
    width, height = (int(side * length / min(image.size)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))


def is_placeholder(data: bytes) -> bool:
    """Whether this is the small black picture that stands in Parquet files where a text has no picture."""
    try:
        _, image = _decoded(data, max_pixels=64, side=1)
    except BadRow:
        return False
    return image.size == (8, 8) and image.convert("L").getextrema()[1] <= _DARK


def _decoded(data: bytes, max_pixels: int, side: int) -> tuple[str | None, Image.Image]:
    """Name of the format, and the picture in RGB."""
    too_many = f"picture of more than {max_pixels} pixels"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, and of half a bomb, which has a limit of its own here
        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        except Image.DecompressionBombError:
            raise BadRow(too_many) from None
        except Exception:  # Pillow's readers raise whatever a broken file leads them to
            raise BadRow("not a picture (JPEG, PNG, WebP, GIF, BMP, TIFF)") from None
        if image.width * image.height > max_pixels:
            raise BadRow(too_many)
        if side * side * max(image.size) > max_pixels * min(image.size):
            raise BadRow("picture too narrow: scaled, it would have too many pixels")
        try:
            image.load()
            return image.format, to_rgb(image)
        except Exception:
            raise BadRow("picture that cannot be decoded") from None
