"""A picture of everything that the built-in world can draw: ``python -m stages.prepare.contact_sheet OUT.png``."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image, ImageDraw

from stages.common.world.vocabulary import BACKGROUNDS, COLOURS, KINDS
from stages.prepare.drawing.backgrounds import draw_background
from stages.prepare.drawing.objects import draw_object

_PAPER = (200, 208, 200)  # light and dark objects are visible on it
_LABEL, _GAP, _BACKGROUND = 64, 6, 96


def contact_sheet(size: int, zoom: int) -> Image.Image:
    """Every kind in every colour, in two columns, above every background; ``zoom`` enlarges the pixels of objects."""
    cell = size * zoom + _GAP
    column_width = _LABEL + cell * len(COLOURS)
    rows = (len(KINDS) + 1) // 2
    per_row = max(1, 2 * column_width // (_BACKGROUND + _GAP))
    background_rows = -(-len(BACKGROUNDS) // per_row)
    height = rows * cell + background_rows * (_BACKGROUND + _GAP + 14) + 2 * _GAP
    sheet = Image.new("RGB", (2 * column_width + _GAP, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, kind in enumerate(KINDS):
        left, top = number // rows * column_width + _GAP, number % rows * cell + _GAP
        draw.text((left, top + cell // 2 - 10), kind, "black")
        for column, colour in enumerate(COLOURS):
            sprite = draw_object(kind, colour, size, False).resize((size * zoom,) * 2, Image.Resampling.NEAREST)
            sheet.paste(sprite, (left + _LABEL + column * cell, top), sprite)
    for number, background in enumerate(BACKGROUNDS):
        left = number % per_row * (_BACKGROUND + _GAP) + _GAP
        top = rows * cell + number // per_row * (_BACKGROUND + _GAP + 14) + 2 * _GAP
        draw.text((left, top), background, "black")
        sheet.paste(draw_background(background, _BACKGROUND, random.Random(0)), (left, top + 14))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the PNG to write")
    parser.add_argument("--size", type=int, default=64, help="side of an object, in pixels (default 64)")
    parser.add_argument("--zoom", type=int, default=1, help="factor by which objects are enlarged (default 1)")
    arguments = parser.parse_args()
    contact_sheet(arguments.size, arguments.zoom).save(arguments.out)


if __name__ == "__main__":
    main()
