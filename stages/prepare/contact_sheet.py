"""A picture of everything that the built-in world can draw: ``python -m stages.prepare.contact_sheet OUT.png``."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from stages.common.world.vocabulary import ATTRIBUTION, BACKGROUNDS, KINDS, PAINTS
from stages.prepare.drawing.backgrounds import draw_background
from stages.prepare.drawing.sprites import draw_object

_PAPER = (200, 208, 200)  # light and dark objects are visible on it
_WIDTH, _GAP, _TITLE = 1800, 6, 18
_LARGE, _PAINTED, _SMALL = 64, 30, (20, 12, 8)  # sides of an object, in pixels
_BACKGROUND = 96


def contact_sheet() -> Image.Image:
    """Every kind as OpenMoji draws it, at three small sizes and in every paint that it takes; then every background."""
    font = _font()
    sections = [_kind(kind, font) for kind in KINDS] + [_background(name, font) for name in BACKGROUNDS]
    places, left, top = [], _GAP, _GAP + _TITLE
    for section in sections:
        if left + section.width > _WIDTH:
            left, top = _GAP, top + section.height + _GAP
        places.append((left, top))
        left += section.width + _GAP
    sheet = Image.new("RGB", (_WIDTH, top + max(section.height for section in sections) + _GAP), _PAPER)
    ImageDraw.Draw(sheet).text((_GAP, _GAP), ATTRIBUTION, "black")
    for section, place in zip(sections, places, strict=True):
        sheet.paste(section, place)
    return sheet


def _font() -> ImageFont.FreeTypeFont | None:
    """A font for Chinese (Debian, Ubuntu: fonts-noto-cjk), if there is one."""
    try:
        return ImageFont.truetype("NotoSansCJK-Regular.ttc", 13)
    except OSError:
        return None


def _titled(width: int, height: int, name: str, word: str, font: ImageFont.FreeTypeFont | None) -> Image.Image:
    section = Image.new("RGB", (width, _TITLE + height), _PAPER)
    ImageDraw.Draw(section).text((0, 0), word if font else name, "black", font)
    return section


def _kind(name: str, font: ImageFont.FreeTypeFont | None) -> Image.Image:
    kind = KINDS[name]
    paints = [paint for paint in PAINTS if kind.recolour]
    columns = (len(paints) + 1) // 2
    section = _titled(_LARGE + _GAP + max(_SMALL) + columns * (_PAINTED + 2), _LARGE, name, kind.words[0], font)

    def draw(colour: str | None, side: int, x: int, y: int) -> None:
        sprite = draw_object(name, colour, side, False)
        section.paste(sprite, (x, _TITLE + y), sprite)

    draw(None, _LARGE, 0, 0)
    for number, side in enumerate(_SMALL):
        draw(None, side, _LARGE + 2, number * (max(_SMALL) + 2))
    for number, paint in enumerate(paints):
        left = _LARGE + max(_SMALL) + _GAP + number % columns * (_PAINTED + 2)
        draw(paint, _PAINTED, left, number // columns * (_PAINTED + 4))
    return section


def _background(name: str, font: ImageFont.FreeTypeFont | None) -> Image.Image:
    section = _titled(_BACKGROUND, _BACKGROUND, name, BACKGROUNDS[name].words[0], font)
    section.paste(draw_background(name, _BACKGROUND, random.Random(0)), (0, _TITLE))
    return section


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the PNG to write")
    sheet = contact_sheet().quantize(256, dither=Image.Dither.NONE)  # a third of the bytes, no difference to be seen
    sheet.save(parser.parse_args().out, optimize=True)


if __name__ == "__main__":
    main()
