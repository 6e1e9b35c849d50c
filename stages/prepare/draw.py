"""Draws the built-in world: objects as bold icons, backgrounds, and whole scenes.

Everything is drawn several times larger with Pillow and scaled down, so that it is smooth at any size. Objects and
backgrounds are cached; the number of different ones is bounded, and so the cost of a scene stays constant.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageOps

from stages.common.world import COLOURS, Scene

Colour = tuple[int, int, int]
Point = tuple[float, float]

_SUPERSAMPLING = 4
_RIM = 0.032  # width of the outline, as a share of the object's size: about one pixel at 32
_SIZES_PER_SIDE = 48  # object sizes are multiples of this share of the image side, which bounds the cache
_VARIANTS = 24  # different drawings of each background

_DARK, _GREY, _SILVER, _WHITE = (45, 42, 52), (128, 132, 145), (196, 202, 212), (252, 252, 252)
_SKIN, _HAIR, _GREY_HAIR, _PINK = (247, 208, 172), (84, 50, 34), (226, 227, 232), (244, 150, 165)
_WOOD, _GLASS, _PAPER, _LEAF = (124, 80, 44), (190, 228, 248), (252, 244, 216), (50, 125, 60)
_BEAK, _LAMP, _FLAME = (248, 168, 40), (255, 236, 140), (255, 128, 24)


# ---------------------------------------------------------------------------------------------------------- objects


@lru_cache(maxsize=4096)
def draw_object(kind: str, colour: str, size: int, flip: bool) -> Image.Image:
    """An RGBA sprite, ``size`` x ``size``. It is shared with other callers: don't change it."""
    if flip:
        return draw_object(kind, colour, size, False).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pen = _Pen(COLOURS[colour], size * _SUPERSAMPLING, is_dark=colour == "black", is_light=colour == "white")
    _OBJECTS[kind](pen)
    pen.seal()
    return pen.image.resize((size, size), Image.Resampling.LANCZOS)


class _Pen:
    """Draws filled shapes on a square of 100 x 100 units, y downwards; ``seal`` puts one outline around them all."""

    def __init__(self, main: Colour, canvas: int, is_dark: bool, is_light: bool) -> None:
        self.image = Image.new("RGBA", (canvas, canvas))
        self.main, self.is_dark, self.is_light = main, is_dark, is_light
        # On a black object a dark line would vanish, so lines and accents are light there.
        self.ink = (205, 208, 220) if is_dark else (38, 34, 48)
        self.deep = (86, 88, 100) if is_dark else (204, 210, 222) if is_light else _mix(main, (30, 15, 30), 0.22)
        self.pale = (134, 138, 150) if is_dark else (158, 174, 200) if is_light else _mix(main, _WHITE, 0.58)
        self.crease = _mix(main, self.ink, 0.45 if is_light else 0.6)
        self._rim = max(2, round(canvas * _RIM))
        self._unit = (canvas - 2 * self._rim) / 100
        self._draw = ImageDraw.Draw(self.image)
        self._sealed = False

    def oval(
        self, x: float, y: float, rx: float, ry: float, fill: Colour | None = None, edge: float = 0, turn: float = 0
    ) -> None:
        self.poly(_ellipse(x, y, rx, ry, turn=turn), fill, edge)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: Colour | None = None, radius: float = 0, edge: float = 0
    ) -> None:
        corners = (
            (x1 - radius, y0 + radius, -90),
            (x1 - radius, y1 - radius, 0),
            (x0 + radius, y1 - radius, 90),
            (x0 + radius, y0 + radius, 180),
        )
        points = [p for x, y, start in corners for p in _ellipse(x, y, radius, radius, start, start + 90, steps=6)]
        self.poly(points, fill, edge)

    def poly(self, points: Sequence[Point], fill: Colour | None = None, edge: float = 0) -> None:
        self._draw.polygon(self._place(points), fill or self.main)
        if edge:
            self.line([*points, points[0]], edge, self.crease)

    def blob(self, points: Sequence[Point], fill: Colour | None = None, edge: float = 0) -> None:
        """A closed smooth curve through ``points``."""
        self.poly(_smooth([points[-1], *points, points[0], points[1]]), fill, edge)

    def line(self, points: Sequence[Point], width: float, fill: Colour | None = None) -> None:
        """A stroke with round ends and corners."""
        placed = self._place(points)
        pixels = max(1, round(width * self._unit))
        self._draw.line(placed, fill or self.main, pixels)
        r = pixels / 2
        for x, y in placed:  # Pillow's own joints leave specks along curves
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill or self.main)

    def path(self, points: Sequence[Point], width: float, fill: Colour | None = None) -> None:
        """A smooth stroke through ``points``."""
        self.line(_smooth([points[0], *points, points[-1]]), width, fill)

    def ring(self, x: float, y: float, radius: float, width: float, fill: Colour | None = None) -> None:
        self.line(_ellipse(x, y, radius - width / 2, radius - width / 2, 0, 364), width, fill)

    def eyes(self, *centres: Point, radius: float = 3.2) -> None:
        for x, y in centres:
            self.oval(x, y, radius, radius * 1.15, self.ink)

    def seal(self) -> None:
        """Outline what has been drawn; what is drawn afterwards has no outline."""
        if self._sealed:
            return
        self._sealed = True
        alpha = self.image.getchannel("A")
        grown = alpha
        for step in range(16):
            angle = step * math.tau / 16
            moved = Image.new("L", alpha.size)  # pasted, as ImageChops.offset would wrap around at the edges
            moved.paste(alpha, (round(self._rim * math.cos(angle)), round(self._rim * math.sin(angle))))
            grown = ImageChops.lighter(grown, moved)
        outlined = Image.new("RGBA", self.image.size, (*self.ink, 0))
        outlined.putalpha(grown)
        outlined.paste(self.image, mask=alpha)
        self.image, self._draw = outlined, ImageDraw.Draw(outlined)

    def _place(self, points: Iterable[Point]) -> list[Point]:
        return [(self._rim + x * self._unit, self._rim + y * self._unit) for x, y in points]


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    """``share`` of b, the rest a."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


def _ellipse(
    x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360, steps: int = 40, turn: float = 0
) -> list[Point]:
    """Points on an ellipse from angle ``start`` to ``stop`` (degrees, clockwise from the right), turned by ``turn``."""
    angles = (math.radians(start + (stop - start) * step / steps) for step in range(steps + 1))
    points = [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]
    return _turned(points, x, y, turn) if turn else points


def _turned(points: Iterable[Point], x: float, y: float, turn: float) -> list[Point]:
    """``points`` turned about (x, y) by ``turn`` degrees."""
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return [(x + (u - x) * cos - (v - y) * sin, y + (u - x) * sin + (v - y) * cos) for u, v in points]


def _smooth(points: Sequence[Point], steps: int = 8) -> list[Point]:
    """Catmull-Rom curve from the second point to the last but one."""
    curve = []
    for a, b, c, d in zip(points, points[1:], points[2:], points[3:], strict=False):
        for step in range(steps):
            t = step / steps
            curve.append(
                tuple(
                    0.5 * (2 * q + (r - p) * t + (2 * p - 5 * q + 4 * r - s) * t**2 + (3 * q - p - 3 * r + s) * t**3)
                    for p, q, r, s in zip(a, b, c, d, strict=True)
                )
            )
    return [*curve, points[-2]]


def _mirror(points: Sequence[Point]) -> list[Point]:
    return [(100 - x, y) for x, y in points]


def _dog(p: _Pen) -> None:
    p.path([(80, 64), (91, 54), (96, 38), (90, 20)], 10)
    for x in (42, 66):
        p.box(x, 72, x + 11, 98, p.deep, 4)
    p.blob([(28, 56), (50, 55), (76, 53), (88, 62), (88, 78), (70, 83), (40, 83), (26, 76)])
    for x in (28, 77):
        p.box(x, 68, x + 12, 100, radius=5)
    p.oval(35, 34, 25, 25, edge=2.4)
    p.oval(35, 46, 15, 12, p.pale)
    p.oval(35, 40, 7, 5, p.ink)
    p.line([(35, 42), (35, 52)], 2.4, p.ink)
    p.eyes((26, 29), (44, 29), radius=3.8)
    ear = [(20, 10), (8, 14), (1, 36), (3, 54), (11, 57), (16, 40)]
    for hanging in (ear, [(70 - x, y) for x, y in ear]):
        p.blob(hanging, p.deep, edge=2.4)


def _cat(p: _Pen) -> None:
    p.path([(66, 94), (88, 92), (95, 74), (86, 58)], 10)
    p.blob([(50, 52), (68, 62), (76, 86), (70, 100), (30, 100), (24, 86), (32, 62)])
    p.line([(50, 80), (50, 98)], 2.4, p.crease)
    ear, inner = [(13, 42), (13, 0), (46, 16)], [(19, 28), (19, 10), (34, 17)]
    for outline, inside in ((ear, inner), (_mirror(ear), _mirror(inner))):
        p.poly(outline)
        p.poly(inside, _PINK)
    p.oval(50, 39, 38, 27, edge=2.4)
    for x in (34, 66):
        p.oval(x, 36, 8, 8, (238, 240, 150))
        p.oval(x, 36, 2.8, 7, _DARK)
    p.poly([(44, 47), (56, 47), (50, 53)], _PINK)
    p.seal()
    for y, drop in ((50, -3), (56, 5)):
        whisker = [(32, y), (0, y + drop)]
        for points in (whisker, _mirror(whisker)):
            p.line(points, 2.8, p.ink)


def _panda(p: _Pen) -> None:
    patch = (98, 100, 114) if p.is_dark else _DARK
    edge = 2.4 if p.is_dark else 0
    for x in (18, 82):
        p.oval(x, 13, 12, 12, patch, edge)
    p.oval(50, 69, 40, 31)
    for x, turn in ((13, 20), (87, -20)):
        p.oval(x, 68, 9, 17, patch, edge, turn)
    for x in (27, 73):
        p.oval(x, 93, 14, 7, patch, edge)
    p.oval(50, 35, 43, 31, edge=2.4)
    for x, turn in ((31, 30), (69, -30)):
        p.oval(x, 34, 10, 13, patch, edge, turn)
        p.oval(x, 33, 4, 4.4, _WHITE)
    p.oval(50, 48, 6, 4.4, p.ink)


def _rabbit(p: _Pen) -> None:
    p.oval(84, 84, 12, 11, _WHITE, edge=2.4)
    for x, turn in ((36, -8), (64, 8)):
        p.oval(x, 24, 11, 25, turn=turn)
        p.oval(x, 25, 5, 18, _PINK, turn=turn)
    p.blob([(50, 58), (72, 68), (80, 88), (70, 100), (30, 100), (20, 88), (28, 68)])
    p.oval(50, 56, 30, 22, edge=2.4)
    p.eyes((37, 52), (63, 52), radius=4)
    p.poly([(44, 59), (56, 59), (50, 64)], _PINK)
    p.box(45, 66, 55, 76, _WHITE, radius=1)
    p.line([(50, 66), (50, 75)], 1.6, p.crease)
    for x in (34, 66):
        p.oval(x, 95, 12, 5, p.pale)


def _bird(p: _Pen) -> None:
    p.poly([(26, 64), (0, 54), (6, 68), (0, 82), (28, 74)], p.deep)
    p.blob([(52, 54), (60, 28), (78, 8), (84, 26), (76, 52)], p.deep)
    p.blob([(20, 68), (38, 54), (60, 50), (80, 50), (84, 66), (72, 82), (50, 88), (30, 80)])
    p.oval(76, 50, 15, 14)
    p.poly([(87, 42), (100, 50), (87, 57)], _BEAK)
    p.eyes((79, 47), radius=3.6)
    p.blob([(62, 66), (56, 38), (38, 14), (22, 6), (18, 22), (22, 40), (30, 58), (46, 70)], edge=2.4)
    for points in ([(20, 24), (44, 46)], [(24, 42), (46, 56)]):
        p.line(points, 2.4, p.crease)


def _fish(p: _Pen) -> None:
    p.poly([(26, 42), (34, 24), (52, 18), (66, 44)], p.deep)
    p.poly([(36, 84), (44, 100), (58, 98), (56, 82)], p.deep)
    p.poly([(62, 62), *_ellipse(62, 62, 38, 38, -48, 48)], p.deep)
    for turn in (-24, 0, 24):
        p.line([(72, 62), _ellipse(62, 62, 34, 34, turn, turn, 1)[0]], 2.4, p.crease)
    p.oval(39, 62, 39, 28)
    for x in (40, 53):
        p.line(_ellipse(x, 62, 9, 17, -70, 70), 2.6, p.crease)
    p.oval(20, 55, 9.5, 9.5, _WHITE, edge=2.2)
    p.oval(18, 55, 4.6, 4.6, _DARK)
    p.path([(3, 70), (10, 72), (14, 70)], 2.4, p.crease)


def _butterfly(p: _Pen) -> None:
    feeler = [(49, 30), (44, 14), (34, 2)]
    upper = [(48, 50), (42, 28), (22, 8), (3, 8), (1, 30), (12, 50), (34, 56)]
    lower = [(48, 52), (28, 54), (12, 66), (14, 88), (28, 97), (42, 84)]
    for side in (list, _mirror):
        p.path(side(feeler), 3.4)
        p.blob(side(lower), p.deep, edge=2.4)
        p.blob(side(upper), edge=2.4)
        p.blob(side([(12, 19), (22, 17), (25, 28), (16, 32)]), p.pale)
        p.blob(side([(23, 71), (32, 71), (31, 82), (23, 82)]), p.pale)
    p.oval(50, 54, 5.5, 28, p.ink)


def _woman(p: _Pen) -> None:
    p.blob([(50, 0), (67, 5), (73, 26), (76, 56), (64, 62), (36, 62), (24, 56), (27, 26), (33, 5)], _HAIR)
    for x in (39, 53):
        p.box(x, 84, x + 8, 98, _SKIN)
        p.box(x - 1, 95, x + 9, 100, _DARK, 2)
    p.poly([(37, 42), (63, 42), (62, 56), (90, 89), (10, 89), (38, 56)])
    for side in (list, _mirror):
        p.line(side([(35, 48), (19, 66)]), 8, _SKIN)
    p.line([(39, 57), (61, 57)], 4, p.deep)
    p.oval(50, 24, 16, 17, _SKIN)
    p.blob([(32, 24), (35, 9), (50, 3), (65, 9), (68, 24), (58, 15), (48, 12)], _HAIR)
    p.oval(43, 27, 2.6, 3.2, _DARK)
    p.oval(57, 27, 2.6, 3.2, _DARK)
    p.path([(45, 34), (50, 36), (55, 34)], 2, (190, 70, 70))


def _elderly(p: _Pen) -> None:
    p.path([(86, 98), (86, 66), (86, 54), (92, 50), (98, 56)], 5, _WOOD)
    for x in (28, 48):
        p.box(x, 86, x + 13, 98, _GREY)
        p.box(x - 3, 94, x + 13, 100, _DARK, 2)
    p.line([(30, 54), (18, 74)], 13, p.deep)
    p.poly([(30, 44), (62, 44), (70, 60), (75, 91), (15, 91), (22, 60)])
    p.line([(46, 56), (46, 90)], 2.4, p.crease)
    p.line([(62, 54), (78, 66)], 16, p.crease)
    p.line([(62, 54), (78, 66)], 12.5)
    p.oval(85, 67, 6, 6, _SKIN)
    p.oval(46, 24, 18, 22, _SKIN)
    for x in (27, 65):
        p.oval(x, 26, 6, 10, _GREY_HAIR)
    p.blob([(31, 33), (38, 36), (46, 34), (54, 36), (61, 33), (57, 47), (46, 53), (35, 47)], _GREY_HAIR)
    for x in (39, 53):
        p.line([(x - 4, 17), (x + 4, 17)], 3.4, _GREY_HAIR)
        p.oval(x, 24, 2.8, 3.2, _DARK)


def _dancer(p: _Pen) -> None:
    p.line([(45, 62), (42, 96)], 8, _SKIN)
    p.line([(43, 90), (42, 98)], 8)
    p.line([(54, 62), (94, 40)], 8, _SKIN)
    p.line([(88, 43), (96, 38)], 8)
    for side in ([(41, 40), (24, 26), (30, 4)], [(57, 40), (74, 24), (68, 3)]):
        p.path(side, 7, _SKIN)
    p.blob([(14, 68), (30, 54), (50, 50), (70, 54), (84, 66), (70, 74), (58, 70), (46, 75), (32, 72)])
    p.poly([(38, 36), (60, 36), (57, 56), (41, 56)])
    p.line([(41, 56), (57, 56)], 3, p.deep)
    p.oval(49, 7, 7, 6.5, _HAIR)
    p.oval(49, 21, 13, 13.5, _HAIR)
    p.oval(49, 24, 11, 11, _SKIN)
    p.oval(45, 24, 2, 2.6, _DARK)
    p.oval(53, 24, 2, 2.6, _DARK)


def _astronaut(p: _Pen) -> None:
    p.box(14, 34, 86, 74, _GREY, 6)
    for side in (list, _mirror):
        p.line(side([(30, 56), (12, 74)]), 15)
        p.oval(*side([(10, 78)])[0], 8.5, 8, _SILVER)
    for x in (29, 52):
        p.box(x, 72, x + 19, 98, radius=4)
        p.box(x - 2, 90, x + 21, 100, _SILVER, 4)
    p.box(27, 44, 73, 84, radius=12, edge=2.4)
    p.oval(50, 27, 28, 27, edge=2.4)
    p.oval(50, 28, 20, 17, _GLASS if p.is_dark else (40, 52, 84))
    p.oval(43, 22, 5.5, 4, _WHITE, turn=-25)
    p.box(39, 62, 61, 76, _SILVER, 2)
    for x, light in ((45, (220, 60, 60)), (55, (60, 160, 220))):
        p.oval(x, 69, 3, 3, light)


def _wheel(p: _Pen, x: float, y: float, radius: float) -> None:
    p.oval(x, y, radius, radius, _DARK, edge=2.4)
    p.oval(x, y, radius * 0.48, radius * 0.48, _SILVER)


def _car(p: _Pen) -> None:
    p.blob([(14, 54), (26, 20), (36, 9), (50, 8), (66, 9), (76, 20), (90, 54)])
    p.box(0, 44, 100, 86, radius=13)
    p.poly([(25, 45), (34, 22), (40, 18), (48, 18), (48, 45)], _GLASS)
    p.poly([(54, 45), (54, 18), (63, 18), (69, 22), (79, 45)], _GLASS)
    p.line([(29, 42), (37, 24)], 3, _WHITE)
    p.line([(51, 48), (51, 80)], 2.4, p.crease)
    p.line([(57, 55), (64, 55)], 3, p.crease)
    p.oval(95, 58, 5, 6, _LAMP)
    p.box(0, 54, 5, 64, (225, 60, 50), 2)
    _wheel(p, 25, 83, 17)
    _wheel(p, 76, 83, 17)


def _bus(p: _Pen) -> None:
    p.box(0, 5, 100, 88, radius=9)
    for x0, x1 in ((6, 24), (29, 47), (52, 70)):
        p.box(x0, 17, x1, 44, _GLASS, 3)
    p.poly([(76, 17), (94, 17), (97, 50), (76, 50)], _GLASS)
    p.box(0, 54, 73, 61, p.pale)
    p.line([(73, 12), (73, 86)], 2.4, p.crease)
    p.oval(95, 70, 4.5, 5, _LAMP)
    _wheel(p, 24, 85, 15)
    _wheel(p, 78, 85, 15)


def _bicycle(p: _Pen) -> None:
    rear, front, pedals, seat, head = (22, 76), (78, 76), (47, 77), (39, 44), (67, 42)
    for x, y in (rear, front):
        p.ring(x, y, 24, 6.5)
        p.oval(x, y, 3, 3)
    for a, b in ((rear, pedals), (rear, seat), ((37, 36), pedals), (pedals, head), (seat, head), ((64, 28), front)):
        p.line([a, b], 6.5)
    p.line([(28, 34), (46, 34)], 8, _GREY)
    p.path([(64, 30), (61, 16), (68, 10), (80, 10), (90, 20)], 6, _GREY)
    p.oval(*pedals, 5, 5, _GREY)


def _boat(p: _Pen) -> None:
    p.line([(49, 2), (49, 70)], 4.5, _WOOD)
    p.poly([(54, 4), (54, 62), (94, 62)])
    p.poly([(44, 14), (44, 62), (8, 62)], p.pale)
    p.poly([(0, 69), (100, 69), *_ellipse(50, 69, 50, 31, 8, 172)])
    p.poly([(2, 75), (98, 75), (95, 82), (5, 82)], p.deep)


def _plane(p: _Pen) -> None:
    def heading(points: Sequence[Point]) -> list[Point]:
        """From (along, across) the plane to the picture: it flies to the upper right."""
        return [(50 + 0.707 * (u + v), 50 + 0.707 * (v - u)) for u, v in points]

    for side in (1, -1):
        p.poly(heading([(24, 4 * side), (-8, 60 * side), (-20, 52 * side), (-12, 4 * side)]), edge=2)
        p.poly(heading([(-36, 3 * side), (-50, 22 * side), (-60, 16 * side), (-54, 3 * side)]), p.deep)
    flank = [(62, 7), (44, 10), (-30, 9), (-60, 4)]
    p.blob(heading([(70, 0), *flank, (-62, 0), *((u, -v) for u, v in flank[::-1])]), edge=2)
    p.poly(heading([(60, -6), (60, 6), (52, 8), (52, -8)]), _GLASS)
    for u in (40, 30, 20, 10, 0, -10, -20):
        p.oval(*heading([(u, 0)])[0], 2.4, 2.4, _GLASS)


def _rocket(p: _Pen) -> None:
    p.blob([(38, 74), (30, 88), (41, 91), (50, 103), (59, 91), (70, 88), (62, 74)], _FLAME)
    p.blob([(44, 74), (43, 86), (50, 95), (57, 86), (56, 74)], _LAMP)
    fin = [(36, 46), (10, 68), (12, 86), (36, 76)]
    for side in (list, _mirror):
        p.poly(side(fin), p.deep)
    flank = [(50, 0), (64, 20), (72, 44), (68, 64), (62, 78)]
    side = _smooth([flank[0], *flank, flank[-1]])
    p.poly(side + _mirror(side)[::-1])
    p.path([(36, 21), (50, 24), (64, 21)], 2.4, p.crease)
    p.oval(50, 42, 11, 11, p.crease)
    p.oval(50, 42, 8, 8, _GLASS)
    p.line([(36, 70), (64, 70)], 4, p.deep)


def _chair(p: _Pen) -> None:
    for x in (28, 63):
        p.box(x, 56, x + 9, 86, p.deep)
    for x in (16, 73):
        p.box(x, 0, x + 11, 54, radius=3)
    for y in (4, 24):
        p.box(16, y, 84, y + 14, radius=3)
    p.poly([(18, 45), (82, 45), (96, 60), (4, 60)], edge=2.4)
    p.box(4, 58, 96, 67, p.deep)
    for x in (6, 84):
        p.box(x, 62, x + 10, 100, radius=2)


def _book(p: _Pen) -> None:
    print_colour = p.pale if p.is_light else p.main
    p.poly([(0, 18), (50, 26), (100, 18), (100, 92), (50, 100), (0, 92)])
    for side in (list, _mirror):
        page = _smooth([(11, 10), (11, 10), (28, 6), (42, 10), (50, 18), (50, 18)])
        foot = _smooth([(50, 85), (50, 85), (42, 77), (28, 74), (11, 78), (11, 78)])
        p.poly(side(page + foot), _PAPER, edge=2.2)
        for y in (26, 40, 54, 68):
            p.path(side([(19, y - 2), (30, y - 3), (42, y)]), 4.6, print_colour)
    p.line([(50, 20), (50, 98)], 3, p.crease)


def _umbrella(p: _Pen) -> None:
    p.line([(50, 0), (50, 10)], 4, _GREY)
    p.path([(50, 40), (50, 70), (50, 88), (56, 97), (66, 96), (70, 87)], 5.5, _WOOD)
    scallops = [point for x in (87.5, 62.5, 37.5, 12.5) for point in _ellipse(x, 54, 12.5, 9, 0, -180, steps=12)]
    p.poly(_ellipse(50, 54, 50, 48, 180, 360) + scallops)
    left_rib, right_rib = (
        [(50, 6), (50, 6), (50 + lean, 22), (50 + reach, 54), (50 + reach, 54)]
        for lean, reach in ((-18, -25), (18, 25))
    )
    p.poly(_smooth(left_rib) + _ellipse(37.5, 54, 12.5, 9, 180, 360), p.deep)
    p.poly(_smooth(right_rib) + _ellipse(87.5, 54, 12.5, 9, 180, 360) + _ellipse(50, 54, 50, 48, 360, 270), p.deep)


def _ball(p: _Pen) -> None:
    p.oval(50, 51, 49, 49)
    for near, far in ((1.18, 1.48), (1.84, 2.16), (2.52, 2.8)):
        p.poly(_stripe(50, 51, 49, near, far), p.pale)


def _stripe(x: float, y: float, radius: float, near: float, far: float) -> list[Point]:
    """The part of a ball between two circles about a point outside of it, which is two radii away; radii in radii."""
    distance, aim = 2.0, -60
    outline: list[Point] = []
    for reach, order in ((near, 1), (far, -1)):
        half = math.degrees(math.acos((distance**2 + reach**2 - 1) / (2 * distance * reach)))
        away = math.radians(aim + 180)
        hub = x - radius * distance * math.cos(away), y - radius * distance * math.sin(away)
        arc = _ellipse(*hub, radius * reach, radius * reach, aim + 180 - half, aim + 180 + half, steps=16)
        outline += arc[::order]
    return outline


def _balloon(p: _Pen) -> None:
    p.path([(50, 72), (46, 80), (53, 90), (50, 100)], 3.6, _WHITE)
    p.poly([(50, 60), (41, 73), (59, 73)], p.deep)
    p.blob([(50, 0), (77, 9), (86, 32), (73, 56), (50, 68), (27, 56), (14, 32), (23, 9)])
    p.oval(34, 21, 6, 11, p.pale, turn=30)


def _house(p: _Pen) -> None:
    p.box(13, 42, 87, 100)
    p.poly([(50, 0), (100, 47), (0, 47)], p.deep, edge=2.4)
    p.box(55, 64, 74, 100, _WOOD)
    p.oval(70, 83, 2, 2, _LAMP)
    p.box(22, 58, 46, 80, _GLASS, edge=2.4)
    p.line([(34, 58), (34, 80)], 2.4, p.crease)
    p.line([(22, 69), (46, 69)], 2.4, p.crease)


def _tree(p: _Pen) -> None:
    p.poly([(43, 56), (57, 56), (59, 88), (68, 100), (32, 100), (41, 88)], _WOOD)
    for x, y, rx, ry in ((22, 46, 22, 19), (78, 46, 22, 19), (50, 54, 26, 18), (32, 24, 24, 21), (67, 23, 24, 21)):
        p.oval(x, y, rx, ry)
    p.oval(50, 34, 26, 26)
    for points in (
        [(14, 48), (22, 56), (34, 54)],
        [(44, 62), (54, 62), (62, 55)],
        [(72, 52), (82, 52), (88, 44)],
        [(40, 32), (48, 38), (58, 34)],
        [(24, 26), (30, 32), (38, 30)],
    ):
        p.path(points, 3.4, p.deep)


def _flower(p: _Pen) -> None:
    p.line([(50, 50), (50, 98)], 6, _LEAF)
    leaf = [(50, 96), (36, 72), (14, 68), (24, 90)]
    for side in (list, _mirror):
        p.blob(side(leaf), _LEAF)
    for petal in range(5):
        angle = math.radians(petal * 72 - 90)
        p.oval(50 + 20 * math.cos(angle), 34 + 19 * math.sin(angle), 17, 14, edge=2.4, turn=petal * 72 - 90)
    yellowish = p.main[0] > 240 and p.main[2] < 60
    p.oval(50, 34, 10, 10, (150, 80, 30) if yellowish else (252, 205, 50), edge=2)


def _rainbow(p: _Pen) -> None:
    for outer, fill in ((50, p.main), (41, p.pale), (34, p.main), (25, p.deep)):
        inner = 18
        p.poly(_ellipse(50, 78, outer, outer * 1.1, 180, 360) + _ellipse(50, 78, inner, inner * 1.1, 360, 180), fill)


_OBJECTS: dict[str, Callable[[_Pen], None]] = {
    "dog": _dog,
    "cat": _cat,
    "panda": _panda,
    "rabbit": _rabbit,
    "bird": _bird,
    "fish": _fish,
    "butterfly": _butterfly,
    "woman": _woman,
    "elderly": _elderly,
    "dancer": _dancer,
    "astronaut": _astronaut,
    "car": _car,
    "bus": _bus,
    "bicycle": _bicycle,
    "boat": _boat,
    "plane": _plane,
    "rocket": _rocket,
    "chair": _chair,
    "book": _book,
    "umbrella": _umbrella,
    "ball": _ball,
    "balloon": _balloon,
    "house": _house,
    "tree": _tree,
    "flower": _flower,
    "rainbow": _rainbow,
}


# ------------------------------------------------------------------------------------------------------ backgrounds


def draw_background(background: str, image_size: int, rng: random.Random) -> Image.Image:
    """An RGB picture of the place, one of a fixed number of drawings chosen by ``rng``; the caller may draw on it."""
    return _background(background, image_size, rng.randrange(_VARIANTS)).copy()


@lru_cache(maxsize=256)
def _background(background: str, image_size: int, variant: int) -> Image.Image:
    place = _Place(image_size * 2)
    rng = random.Random(f"{background}/{variant}")
    _PLACES[background](place, rng)
    picture = place.image.resize((image_size, image_size), Image.Resampling.BOX)
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(0.92, 1.04))


class _Place:
    """Draws in fractions of the side of a square picture."""

    def __init__(self, canvas: int) -> None:
        self.image = Image.new("RGB", (canvas, canvas))
        self._side = canvas
        self._draw = ImageDraw.Draw(self.image)

    def fade(self, y0: float, y1: float, top: Colour, bottom: Colour) -> None:
        """A band across the whole picture whose colour changes from top to bottom."""
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
        """A see-through shape."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon([(x * self._side, y * self._side) for x, y in points], round(255 * strength))
        self.image.paste(fill, mask=mask)

    def wave(self, y: float, height: float, length: float, phase: float) -> list[Point]:
        """A wavy line from left to right."""
        xs = [step / 32 for step in range(33)]
        return [(x, y + height * math.sin(math.tau * (x / length + phase))) for x in xs]


def _seaside(place: _Place, rng: random.Random) -> None:
    horizon, beach = rng.uniform(0.26, 0.36), rng.uniform(0.58, 0.68)
    place.fade(0, horizon, (176, 208, 226), (222, 234, 238))
    place.fade(horizon, 1, (66, 128, 170), (112, 176, 196))
    for step in range(4):
        y = horizon + (beach - horizon) * (0.22 + 0.18 * step)
        place.line(place.wave(y, 0.006, rng.uniform(0.15, 0.25), rng.random()), 0.008, (146, 194, 212))
    length, phase = rng.uniform(0.5, 0.9), rng.random()
    for drop, fill in ((-0.02, (236, 244, 244)), (0.015, (206, 186, 140)), (0.04, (224, 202, 150))):
        shore = place.wave(beach + drop, 0.018, length, phase)
        place.poly([*shore, (1, 1), (0, 1)], fill)
    for _ in range(40):
        x, y = rng.random(), rng.uniform(beach + 0.1, 1)
        place.oval(x, y, 0.006, 0.004, rng.choice([(206, 182, 128), (238, 220, 176)]))


def _street(place: _Place, rng: random.Random) -> None:
    road = rng.uniform(0.6, 0.68)
    place.fade(0, road, (178, 196, 210), (216, 222, 226))
    x = -rng.uniform(0, 0.1)
    while x < 1:
        width, top = rng.uniform(0.15, 0.24), rng.uniform(0.04, 0.24)
        wall = rng.choice([(150, 152, 160), (168, 160, 150), (136, 144, 156), (176, 168, 160)])
        place.box(x, top, x + width - 0.012, road, wall)
        glass = _mix(wall, (88, 98, 116), 0.6)
        columns = 3 if width > 0.19 else 2
        for row in range(9):
            for column in range(columns):
                left = x + width * (column + 0.28) / columns
                y = top + 0.04 + row * 0.07
                if y + 0.035 < road - 0.03:
                    place.box(left, y, left + width * 0.4 / columns, y + 0.035, glass)
        x += width
    place.box(0, road - 0.02, 1, road + 0.04, (186, 184, 180))
    place.fade(road + 0.04, 1, (122, 124, 128), (104, 106, 110))
    dash, y = rng.uniform(0, 0.3), road + (1 - road) * 0.55
    for step in range(-1, 5):
        left = dash + step * 0.3
        place.poly([(left, y), (left + 0.17, y), (left + 0.16, y + 0.035), (left - 0.01, y + 0.035)], (232, 232, 228))


def _grassland(place: _Place, rng: random.Random) -> None:
    horizon = rng.uniform(0.5, 0.58)
    place.fade(0, horizon, (146, 192, 226), (210, 230, 240))
    for lift, height, fill in ((-0.07, 0.05, (150, 182, 150)), (-0.02, 0.035, (134, 172, 116))):
        hills = place.wave(horizon + lift, height, rng.uniform(0.45, 0.8), rng.random())
        place.poly([*hills, (1, 1), (0, 1)], fill)
    place.fade(horizon + 0.03, 1, (126, 168, 98), (98, 144, 76))
    for _ in range(70):
        x, y = rng.random(), rng.uniform(horizon + 0.08, 1.02)
        height = 0.015 + 0.035 * (y - horizon)
        lean = rng.uniform(-0.012, 0.012)
        place.line([(x, y), (x + lean, y - height)], 0.008, rng.choice([(84, 130, 64), (146, 184, 110)]))


def _snow(place: _Place, rng: random.Random) -> None:
    horizon = rng.uniform(0.48, 0.58)
    place.fade(0, horizon + 0.05, (150, 158, 170), (190, 196, 204))
    far = place.wave(horizon, 0.02, rng.uniform(0.7, 1.1), rng.random())
    place.poly([*far, (1, 1), (0, 1)], (212, 218, 228))
    near = place.wave(horizon + 0.12, 0.03, rng.uniform(0.8, 1.3), rng.random())
    place.poly([*near, (1, 1), (0, 1)], (228, 233, 240))
    for _ in range(3):
        x, y = rng.random(), rng.uniform(horizon + 0.22, 0.95)
        place.oval(x, y, rng.uniform(0.1, 0.2), 0.012, (208, 216, 228))
    for _ in range(46):
        radius = rng.uniform(0.006, 0.014)
        place.oval(rng.random(), rng.random(), radius, radius, (250, 252, 255))


def _night(place: _Place, rng: random.Random) -> None:
    horizon = rng.uniform(0.66, 0.74)
    place.fade(0, horizon + 0.06, (20, 28, 72), (46, 60, 112))
    for _ in range(16):
        place.oval(rng.random(), rng.uniform(0, 0.55), 0.006, 0.006, (176, 186, 216))
    x, y, radius = rng.uniform(0.15, 0.85), rng.uniform(0.12, 0.2), rng.uniform(0.085, 0.1)
    turn = rng.uniform(-35, 15)
    hollow = _turned(_ellipse(x + 0.3 * radius, y, 0.72 * radius, 0.954 * radius, 270, 90), x, y, turn)
    place.poly(_ellipse(x, y, radius, radius, 72.5, 287.5, turn=turn) + hollow, (240, 230, 180))
    ground = place.wave(horizon, 0.02, rng.uniform(0.6, 1.0), rng.random())
    place.poly([*ground, (1, 1), (0, 1)], (26, 32, 44))
    place.poly([(px, py + 0.12) for px, py in ground] + [(1, 1), (0, 1)], (20, 25, 34))


def _space(place: _Place, rng: random.Random) -> None:
    place.fade(0, 1, (8, 8, 16), (14, 14, 26))
    for _ in range(70):
        radius, light = rng.choice((0.004, 0.005, 0.008)), rng.choice([_WHITE, (200, 214, 250), (250, 236, 200)])
        place.oval(rng.random(), rng.random(), radius, radius, light)
    for _ in range(4):
        x, y = rng.random(), rng.uniform(0, 0.75)
        place.line([(x - 0.02, y), (x + 0.02, y)], 0.005, (255, 255, 255))
        place.line([(x, y - 0.02), (x, y + 0.02)], 0.005, (255, 255, 255))
    x, top, radius = rng.uniform(0.3, 0.7), rng.uniform(0.8, 0.86), rng.uniform(1.3, 1.8)
    land = rng.choice([(88, 124, 142), (140, 110, 92), (112, 122, 104)])
    place.oval(x, top + radius - 0.02, radius, radius, _mix(land, (220, 236, 250), 0.5))
    place.oval(x, top + radius, radius, radius, land)
    for _ in range(6):
        spot = rng.random(), rng.uniform(0.93, 1.0)
        place.oval(*spot, rng.uniform(0.05, 0.14), rng.uniform(0.012, 0.03), _mix(land, (0, 0, 0), 0.16))


def _valley(place: _Place, rng: random.Random) -> None:
    pool, lip = rng.uniform(0.68, 0.75), rng.uniform(0.12, 0.17)
    middle, half = rng.uniform(0.42, 0.58), rng.uniform(0.11, 0.15)
    place.fade(0, lip, (176, 202, 216), (204, 218, 222))
    place.fade(lip, pool, (112, 106, 102), (94, 92, 92))
    place.box(middle - half, lip, middle + half, pool, (190, 216, 228))
    for _ in range(9):
        x = middle + rng.uniform(-0.9, 0.9) * half
        place.line([(x, lip), (x, pool)], 0.01, rng.choice([(236, 244, 248), (160, 196, 214)]))
    for side in (-1, 1):
        edge = 0 if side < 0 else 1
        levels = [lip + (pool - lip) * step / 6 for step in range(7)]
        inner = [middle + side * half * rng.uniform(0.92, 1.25) for _ in levels]
        top = [(edge, rng.uniform(0, 0.03)), (middle + side * 2.4 * half, rng.uniform(0, 0.06)), (inner[0], lip)]
        place.poly([*top, *zip(inner, levels, strict=True), (edge, pool)], (138, 128, 118))
        for step in range(6):
            # Facets of rock: a lit and a shaded one at each level.
            for reach, fill in ((rng.uniform(1.6, 2.3), (118, 108, 100)), (rng.uniform(2.6, 3.4), (152, 142, 130))):
                x, y = middle + side * half * reach, levels[step] + 0.01
                place.poly([(x, y), (x + side * 0.06, y + 0.03), (x + side * 0.02, y + 0.09)], fill)
    place.fade(pool, 1, (122, 174, 182), (88, 144, 158))
    for _ in range(8):
        place.oval(middle + rng.uniform(-1.2, 1.2) * half, pool + 0.008, 0.05, 0.022, (230, 240, 243))
    for _ in range(7):
        x, y = rng.random(), rng.uniform(pool + 0.06, 0.98)
        place.line([(x - 0.07, y), (x + 0.07, y)], 0.008, (158, 202, 206))


def _room(place: _Place, rng: random.Random) -> None:
    floor = rng.uniform(0.64, 0.72)
    place.fade(0, floor, (234, 220, 186), (226, 210, 172))
    left, top = rng.uniform(0.1, 0.55), rng.uniform(0.08, 0.14)
    width, height = rng.uniform(0.28, 0.34), rng.uniform(0.3, 0.36)
    place.box(left - 0.025, top - 0.025, left + width + 0.025, top + height + 0.025, (246, 242, 230))
    place.box(left, top, left + width, top + height, (204, 230, 242))
    place.glow(
        [(left, top + height * 0.8), (left, top + height * 0.3), (left + width * 0.6, top), (left + width, top)],
        (255, 255, 255),
        0.55,
    )
    place.box(left + width / 2 - 0.01, top, left + width / 2 + 0.01, top + height, (246, 242, 230))
    place.box(left, top + height / 2 - 0.01, left + width, top + height / 2 + 0.01, (246, 242, 230))
    place.box(left - 0.04, top + height + 0.02, left + width + 0.04, top + height + 0.045, (222, 206, 172))
    place.fade(floor, 1, (166, 126, 88), (150, 112, 78))
    tilt = rng.uniform(0.42, 0.58)
    for board in range(-8, 17):
        # The boards run towards the viewer, from a vanishing point on the wall.
        far, near = tilt + (board / 8 - tilt) * 0.62, tilt + (board / 8 - tilt) * 1.15
        width = 0.0775
        if board % 2:
            place.poly([(far, floor), (far + width, floor), (near + 0.144, 1), (near, 1)], (176, 136, 98))
        place.line([(far, floor), (near, 1)], 0.007, (118, 86, 58))
    place.box(0, floor - 0.025, 1, floor, (244, 236, 214))


def _stage(place: _Place, rng: random.Random) -> None:
    floor = rng.uniform(0.68, 0.75)
    place.fade(0, floor, (58, 48, 62), (86, 72, 84))
    place.fade(floor, 1, (150, 122, 100), (112, 90, 76))
    for lamp in (0.3, 0.5, 0.7):
        x = lamp + rng.uniform(-0.04, 0.04)
        aim = x + rng.uniform(-0.14, 0.14)
        pool = _ellipse(aim, floor + 0.1, 0.17, 0.05, 0, 180)
        place.glow([(x - 0.02, 0), (x + 0.02, 0), *pool], (255, 238, 200), 0.2)
        # The floor is smooth: the light is mirrored in it.
        place.glow(
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
            place.poly([(xs[0], 0), (xs[1], 0), (xs[1], floor + 0.06), (xs[0], floor + 0.06)], fill)
    place.poly([*place.wave(0.07, 0.015, 0.14, rng.random()), (1, 0), (0, 0)], (106, 28, 36))


_PLACES: dict[str, Callable[[_Place, random.Random], None]] = {
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


# ----------------------------------------------------------------------------------------------------------- scenes


def compose(scene: Scene, image_size: int, rng: random.Random) -> Image.Image:
    """The RGB picture of ``scene``: its background, then its objects in the order of its groups."""
    image = draw_background(scene.background, image_size, rng)
    for group in scene.groups:
        for x0, _, x1, y1 in group.boxes:
            size = _sprite_size(x1 - x0, image_size)
            sprite = draw_object(group.kind, group.colour, size, rng.random() < 0.5)
            image.paste(sprite, (round((x0 + x1) / 2 * image_size - size / 2), round(y1 * image_size) - size), sprite)
    return image


def _sprite_size(fraction: float, image_size: int) -> int:
    """Pixels for a box side, rounded to an even number that bounds how many sizes there are."""
    step = 2 * max(1, image_size // (2 * _SIZES_PER_SIDE))
    return max(step, round(fraction * image_size / step) * step)
