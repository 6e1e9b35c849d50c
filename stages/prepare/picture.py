"""Validates pictures by decoding them, and resizes them for the shards."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from stages.common.data.shards import to_rgb
from stages.prepare.quarantine import BadRow

# Pillow supports many more formats, some of them by running other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_DARK = 15  # black in a JPEG is not always 0


def stored_picture(data: bytes, max_pixels: int, side: int, resize: bool) -> bytes:
    """``data`` unchanged or, if ``resize``, the centre crop of the picture as a JPEG of ``side`` x ``side`` pixels.

    The crop is the same as in CLIP's preprocessing. Like CLIP's, it ignores the EXIF orientation. Raises BadRow if the
    picture cannot be decoded completely, or would take too much memory.
    """
    format, image = _decoded(data, max_pixels, side)
    if not resize or (format == "JPEG" and image.size == (side, side)):
        return data
    square = centre_crop(image, side)
    square.info.clear()  # Pillow would copy a JPEG comment
    buffer = io.BytesIO()
    square.save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def centre_crop(image: Image.Image, side: int) -> Image.Image:
    """Resize the shorter edge to ``side`` and crop the centre; an odd pixel is cropped at the right or bottom."""
    width, height = (int(side * length / min(image.size)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))


def is_placeholder(data: bytes) -> bool:
    """Whether this is the black 8 x 8 picture that MiniMind-V's Parquet files contain for rows without a picture."""
    try:
        _, image = _decoded(data, max_pixels=64, side=1)
    except BadRow:
        return False
    return image.size == (8, 8) and image.convert("L").getextrema()[1] <= _DARK


def _decoded(data: bytes, max_pixels: int, side: int) -> tuple[str | None, Image.Image]:
    """The name of the format, and the picture in RGB. Raises BadRow."""
    too_many = f"picture with more than {max_pixels} pixels"
    with warnings.catch_warnings():
        # Warnings are about unusual metadata, and about large pictures, which are checked below.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        except Image.DecompressionBombError:
            raise BadRow(too_many) from None
        except Exception:  # on a broken file, Pillow's readers raise many types of errors
            raise BadRow("not a picture (JPEG, PNG, WebP, GIF, BMP, TIFF)") from None
        if image.width * image.height > max_pixels:
            raise BadRow(too_many)
        if side * side * max(image.size) > max_pixels * min(image.size):
            raise BadRow("picture too narrow: resized, it would have too many pixels")
        try:
            image.load()
            return image.format, to_rgb(image)
        except Exception:
            raise BadRow("picture that cannot be decoded") from None
