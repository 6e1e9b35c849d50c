"""Draws the backgrounds of scenes: one function per background of the vocabulary.

Each background has a fixed number of random variants, which are cached, so the cost per scene is constant.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from stages.prepare.drawing.shapes import WHITE, Colour, Point, ellipse, mix, rotate

_VARIANTS = 24  # of each background


def draw_background(background: str, image_size: int, rng: random.Random) -> Image.Image:
    """An RGB picture of the background, ``image_size`` x ``image_size`` pixels, in a variant chosen by ``rng``.

    It is a copy that callers may modify. Raises KeyError for an unknown background.
    """
    return _background(background, image_size, rng.randrange(_VARIANTS)).copy()


@lru_cache(maxsize=256)
def _background(background: str, image_size: int, variant: int) -> Image.Image:
    canvas = _Canvas(image_size * 2)
    rng = random.Random(f"{background}/{variant}")
    _DRAWINGS[background](canvas, rng)
    picture = canvas.image.resize((image_size, image_size), Image.Resampling.BOX)
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(0.92, 1.04))


class _Canvas:
    """Draws shapes on a square picture; coordinates are fractions of its side, which is given in pixels."""

    def __init__(self, side: int) -> None:
        self.image = Image.new("RGB", (side, side))
        self._side = side
        self._draw = ImageDraw.Draw(self.image)

    def fade(self, y0: float, y1: float, top: Colour, bottom: Colour) -> None:
        """A band across the picture, from ``y0`` to ``y1``, whose colour changes from ``top`` to ``bottom``."""
        start, stop = round(y0 * self._side), round(y1 * self._side)
        if stop > start:
            band = ImageOps.colorize(Image.linear_gradient("L"), top, bottom)
            self.image.paste(band.resize((self._side, stop - start)), (0, start))

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        s = self._side
        self._draw.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill)

    def poly(self, points: Sequence[Point], fill: Colour) -> None:
        self._draw.polygon([(x * self._side, y * self._side) for x, y in points], fill)

    def line(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        scaled = [(x * self._side, y * self._side) for x, y in points]
        self._draw.line(scaled, fill, max(1, round(width * self._side)), joint="curve")

    def glow(self, points: Sequence[Point], fill: Colour, strength: float) -> None:
        """A translucent polygon; ``strength`` is its opacity."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon([(x * self._side, y * self._side) for x, y in points], round(255 * strength))
        self.image.paste(fill, mask=mask)

    def wave(self, y: float, height: float, length: float, phase: float) -> list[Point]:
        """Points on a sine wave from the left edge to the right edge."""
        xs = [step / 32 for step in range(33)]
        return [(x, y + height * math.sin(math.tau * (x / length + phase))) for x in xs]


def _seaside(canvas: _Canvas, rng: random.Random) -> None:
    horizon, beach = rng.uniform(0.26, 0.36), rng.uniform(0.58, 0.68)
    canvas.fade(0, horizon, (176, 208, 226), (222, 234, 238))
    canvas.fade(horizon, 1, (66, 128, 170), (112, 176, 196))
    for step in range(4):
        y = horizon + (beach - horizon) * (0.22 + 0.18 * step)
        canvas.line(canvas.wave(y, 0.006, rng.uniform(0.15, 0.25), rng.random()), 0.008, (146, 194, 212))
    length, phase = rng.uniform(0.5, 0.9), rng.random()
    for drop, fill in ((-0.02, (236, 244, 244)), (0.015, (206, 186, 140)), (0.04, (224, 202, 150))):
        shore = canvas.wave(beach + drop, 0.018, length, phase)
        canvas.poly([*shore, (1, 1), (0, 1)], fill)
    for _ in range(40):
        x, y = rng.random(), rng.uniform(beach + 0.1, 1)
        canvas.oval(x, y, 0.006, 0.004, rng.choice([(206, 182, 128), (238, 220, 176)]))


def _street(canvas: _Canvas, rng: random.Random) -> None:
    road = rng.uniform(0.6, 0.68)
    canvas.fade(0, road, (178, 196, 210), (216, 222, 226))
    x = -rng.uniform(0, 0.1)
    while x < 1:
        width, top = rng.uniform(0.15, 0.24), rng.uniform(0.04, 0.24)
        wall = rng.choice([(150, 152, 160), (168, 160, 150), (136, 144, 156), (176, 168, 160)])
        canvas.box(x, top, x + width - 0.012, road, wall)
        glass = mix(wall, (88, 98, 116), 0.6)
        columns = 3 if width > 0.19 else 2
        for row in range(9):
            for column in range(columns):
                left = x + width * (column + 0.28) / columns
                y = top + 0.04 + row * 0.07
                if y + 0.035 < road - 0.03:
                    canvas.box(left, y, left + width * 0.4 / columns, y + 0.035, glass)
        x += width
    canvas.box(0, road - 0.02, 1, road + 0.04, (186, 184, 180))
    canvas.fade(road + 0.04, 1, (122, 124, 128), (104, 106, 110))
    dash, y = rng.uniform(0, 0.3), road + (1 - road) * 0.55
    for step in range(-1, 5):
        left = dash + step * 0.3
        canvas.poly([(left, y), (left + 0.17, y), (left + 0.16, y + 0.035), (left - 0.01, y + 0.035)], (232, 232, 228))


def _grassland(canvas: _Canvas, rng: random.Random) -> None:
    horizon = rng.uniform(0.5, 0.58)
    canvas.fade(0, horizon, (146, 192, 226), (210, 230, 240))
    for lift, height, fill in ((-0.07, 0.05, (150, 182, 150)), (-0.02, 0.035, (134, 172, 116))):
        hills = canvas.wave(horizon + lift, height, rng.uniform(0.45, 0.8), rng.random())
        canvas.poly([*hills, (1, 1), (0, 1)], fill)
    canvas.fade(horizon + 0.03, 1, (126, 168, 98), (98, 144, 76))
    for _ in range(70):
        x, y = rng.random(), rng.uniform(horizon + 0.08, 1.02)
        height = 0.015 + 0.035 * (y - horizon)
        lean = rng.uniform(-0.012, 0.012)
        canvas.line([(x, y), (x + lean, y - height)], 0.008, rng.choice([(84, 130, 64), (146, 184, 110)]))


def _snow(canvas: _Canvas, rng: random.Random) -> None:
    horizon = rng.uniform(0.48, 0.58)
    canvas.fade(0, horizon + 0.05, (150, 158, 170), (190, 196, 204))
    far = canvas.wave(horizon, 0.02, rng.uniform(0.7, 1.1), rng.random())
    canvas.poly([*far, (1, 1), (0, 1)], (212, 218, 228))
    near = canvas.wave(horizon + 0.12, 0.03, rng.uniform(0.8, 1.3), rng.random())
    canvas.poly([*near, (1, 1), (0, 1)], (228, 233, 240))
    for _ in range(3):
        x, y = rng.random(), rng.uniform(horizon + 0.22, 0.95)
        canvas.oval(x, y, rng.uniform(0.1, 0.2), 0.012, (208, 216, 228))
    for _ in range(46):
        radius = rng.uniform(0.006, 0.014)
        canvas.oval(rng.random(), rng.random(), radius, radius, (250, 252, 255))


def _night(canvas: _Canvas, rng: random.Random) -> None:
    horizon = rng.uniform(0.66, 0.74)
    canvas.fade(0, horizon + 0.06, (20, 28, 72), (46, 60, 112))
    for _ in range(16):
        canvas.oval(rng.random(), rng.uniform(0, 0.55), 0.006, 0.006, (176, 186, 216))
    x, y, radius = rng.uniform(0.15, 0.85), rng.uniform(0.12, 0.2), rng.uniform(0.085, 0.1)
    turn = rng.uniform(-35, 15)
    hollow = rotate(ellipse(x + 0.3 * radius, y, 0.72 * radius, 0.954 * radius, 270, 90), x, y, turn)
    canvas.poly(ellipse(x, y, radius, radius, 72.5, 287.5, turn=turn) + hollow, (240, 230, 180))
    ground = canvas.wave(horizon, 0.02, rng.uniform(0.6, 1.0), rng.random())
    canvas.poly([*ground, (1, 1), (0, 1)], (26, 32, 44))
    canvas.poly([(px, py + 0.12) for px, py in ground] + [(1, 1), (0, 1)], (20, 25, 34))


def _space(canvas: _Canvas, rng: random.Random) -> None:
    canvas.fade(0, 1, (8, 8, 16), (14, 14, 26))
    for _ in range(70):
        radius, light = rng.choice((0.004, 0.005, 0.008)), rng.choice([WHITE, (200, 214, 250), (250, 236, 200)])
        canvas.oval(rng.random(), rng.random(), radius, radius, light)
    for _ in range(4):
        x, y = rng.random(), rng.uniform(0, 0.75)
        canvas.line([(x - 0.02, y), (x + 0.02, y)], 0.005, (255, 255, 255))
        canvas.line([(x, y - 0.02), (x, y + 0.02)], 0.005, (255, 255, 255))
    x, top, radius = rng.uniform(0.3, 0.7), rng.uniform(0.8, 0.86), rng.uniform(1.3, 1.8)
    land = rng.choice([(88, 124, 142), (140, 110, 92), (112, 122, 104)])
    canvas.oval(x, top + radius - 0.02, radius, radius, mix(land, (220, 236, 250), 0.5))
    canvas.oval(x, top + radius, radius, radius, land)
    for _ in range(6):
        spot = rng.random(), rng.uniform(0.93, 1.0)
        canvas.oval(*spot, rng.uniform(0.05, 0.14), rng.uniform(0.012, 0.03), mix(land, (0, 0, 0), 0.16))


def _valley(canvas: _Canvas, rng: random.Random) -> None:
    pool, lip = rng.uniform(0.68, 0.75), rng.uniform(0.12, 0.17)
    middle, half = rng.uniform(0.42, 0.58), rng.uniform(0.11, 0.15)
    canvas.fade(0, lip, (176, 202, 216), (204, 218, 222))
    canvas.fade(lip, pool, (112, 106, 102), (94, 92, 92))
    canvas.box(middle - half, lip, middle + half, pool, (190, 216, 228))
    for _ in range(9):
        x = middle + rng.uniform(-0.9, 0.9) * half
        canvas.line([(x, lip), (x, pool)], 0.01, rng.choice([(236, 244, 248), (160, 196, 214)]))
    for side in (-1, 1):
        edge = 0 if side < 0 else 1
        levels = [lip + (pool - lip) * step / 6 for step in range(7)]
        inner = [middle + side * half * rng.uniform(0.92, 1.25) for _ in levels]
        top = [(edge, rng.uniform(0, 0.03)), (middle + side * 2.4 * half, rng.uniform(0, 0.06)), (inner[0], lip)]
        canvas.poly([*top, *zip(inner, levels, strict=True), (edge, pool)], (138, 128, 118))
        for step in range(6):
            # A light and a dark facet of rock at each level.
            for reach, fill in ((rng.uniform(1.6, 2.3), (118, 108, 100)), (rng.uniform(2.6, 3.4), (152, 142, 130))):
                x, y = middle + side * half * reach, levels[step] + 0.01
                canvas.poly([(x, y), (x + side * 0.06, y + 0.03), (x + side * 0.02, y + 0.09)], fill)
    canvas.fade(pool, 1, (122, 174, 182), (88, 144, 158))
    for _ in range(8):
        canvas.oval(middle + rng.uniform(-1.2, 1.2) * half, pool + 0.008, 0.05, 0.022, (230, 240, 243))
    for _ in range(7):
        x, y = rng.random(), rng.uniform(pool + 0.06, 0.98)
        canvas.line([(x - 0.07, y), (x + 0.07, y)], 0.008, (158, 202, 206))


def _room(canvas: _Canvas, rng: random.Random) -> None:
    floor = rng.uniform(0.64, 0.72)
    canvas.fade(0, floor, (234, 220, 186), (226, 210, 172))
    left, top = rng.uniform(0.1, 0.55), rng.uniform(0.08, 0.14)
    width, height = rng.uniform(0.28, 0.34), rng.uniform(0.3, 0.36)
    canvas.box(left - 0.025, top - 0.025, left + width + 0.025, top + height + 0.025, (246, 242, 230))
    canvas.box(left, top, left + width, top + height, (204, 230, 242))
    canvas.glow(
        [(left, top + height * 0.8), (left, top + height * 0.3), (left + width * 0.6, top), (left + width, top)],
        (255, 255, 255),
        0.55,
    )
    canvas.box(left + width / 2 - 0.01, top, left + width / 2 + 0.01, top + height, (246, 242, 230))
    canvas.box(left, top + height / 2 - 0.01, left + width, top + height / 2 + 0.01, (246, 242, 230))
    canvas.box(left - 0.04, top + height + 0.02, left + width + 0.04, top + height + 0.045, (222, 206, 172))
    canvas.fade(floor, 1, (166, 126, 88), (150, 112, 78))
    tilt = rng.uniform(0.42, 0.58)
    for board in range(-8, 17):
        # Floorboards in perspective, towards a vanishing point on the wall.
        far, near = tilt + (board / 8 - tilt) * 0.62, tilt + (board / 8 - tilt) * 1.15
        width = 0.0775
        if board % 2:
            canvas.poly([(far, floor), (far + width, floor), (near + 0.144, 1), (near, 1)], (176, 136, 98))
        canvas.line([(far, floor), (near, 1)], 0.007, (118, 86, 58))
    canvas.box(0, floor - 0.025, 1, floor, (244, 236, 214))


def _stage(canvas: _Canvas, rng: random.Random) -> None:
    floor = rng.uniform(0.68, 0.75)
    canvas.fade(0, floor, (58, 48, 62), (86, 72, 84))
    canvas.fade(floor, 1, (150, 122, 100), (112, 90, 76))
    for lamp in (0.3, 0.5, 0.7):
        x = lamp + rng.uniform(-0.04, 0.04)
        aim = x + rng.uniform(-0.14, 0.14)
        pool = ellipse(aim, floor + 0.1, 0.17, 0.05, 0, 180)
        canvas.glow([(x - 0.02, 0), (x + 0.02, 0), *pool], (255, 238, 200), 0.2)
        # The reflection of the light on the smooth floor.
        canvas.glow(
            [(aim - 0.1, floor + 0.12), (aim + 0.1, floor + 0.12), (aim + 0.06, 1), (aim - 0.06, 1)],
            (255, 238, 210),
            0.12,
        )
    width = rng.uniform(0.13, 0.17)
    for side in (0, 1):
        for fold in range(4):
            near, far = fold * width / 4, (fold + 1) * width / 4
            fill = (118, 34, 40) if fold % 2 else (96, 24, 32)
            xs = (near, far) if side == 0 else (1 - near, 1 - far)
            canvas.poly([(xs[0], 0), (xs[1], 0), (xs[1], floor + 0.06), (xs[0], floor + 0.06)], fill)
    canvas.poly([*canvas.wave(0.07, 0.015, 0.14, rng.random()), (1, 0), (0, 0)], (106, 28, 36))


_DRAWINGS: dict[str, Callable[[_Canvas, random.Random], None]] = {
    "seaside": _seaside,
    "street": _street,
    "grassland": _grassland,
    "snow": _snow,
    "night": _night,
    "space": _space,
    "valley": _valley,
    "room": _room,
    "stage": _stage,
}
