"""Draws objects as simple icons: one function per kind of the vocabulary.

Objects are drawn four times larger and scaled down, so that they are smooth at any size. They are cached; the number of
different ones is bounded, so the cost per scene is constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from PIL import Image

from stages.common.world.vocabulary import COLOURS
from stages.prepare.drawing.pen import WHITE, Pen, Point, ellipse, mirror, smooth

_SUPERSAMPLING = 4

_DARK, _GREY, _SILVER = (45, 42, 52), (128, 132, 145), (196, 202, 212)
_SKIN, _HAIR, _GREY_HAIR, _PINK = (247, 208, 172), (84, 50, 34), (226, 227, 232), (244, 150, 165)
_WOOD, _GLASS, _PAPER, _LEAF = (124, 80, 44), (190, 228, 248), (252, 244, 216), (50, 125, 60)
_BEAK, _LAMP, _FLAME = (248, 168, 40), (255, 236, 140), (255, 128, 24)


@lru_cache(maxsize=4096)
def draw_object(kind: str, colour: str, size: int, flip: bool) -> Image.Image:
    """An RGBA picture of one object, ``size`` x ``size`` pixels. It is cached: callers must not modify it.

    Raises KeyError for an unknown kind or colour.
    """
    if flip:
        return draw_object(kind, colour, size, False).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pen = Pen(COLOURS[colour], size * _SUPERSAMPLING, is_dark=colour == "black", is_light=colour == "white")
    _DRAWINGS[kind](pen)
    pen.outline()
    return pen.image.resize((size, size), Image.Resampling.LANCZOS)


def _dog(p: Pen) -> None:
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


def _cat(p: Pen) -> None:
    p.path([(66, 94), (88, 92), (95, 74), (86, 58)], 10)
    p.blob([(50, 52), (68, 62), (76, 86), (70, 100), (30, 100), (24, 86), (32, 62)])
    p.line([(50, 80), (50, 98)], 2.4, p.crease)
    ear, inner = [(13, 42), (13, 0), (46, 16)], [(19, 28), (19, 10), (34, 17)]
    for outline, inside in ((ear, inner), (mirror(ear), mirror(inner))):
        p.poly(outline)
        p.poly(inside, _PINK)
    p.oval(50, 39, 38, 27, edge=2.4)
    for x in (34, 66):
        p.oval(x, 36, 8, 8, (238, 240, 150))
        p.oval(x, 36, 2.8, 7, _DARK)
    p.poly([(44, 47), (56, 47), (50, 53)], _PINK)
    p.outline()
    for y, drop in ((50, -3), (56, 5)):
        whisker = [(32, y), (0, y + drop)]
        for points in (whisker, mirror(whisker)):
            p.line(points, 2.8, p.ink)


def _panda(p: Pen) -> None:
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
        p.oval(x, 33, 4, 4.4, WHITE)
    p.oval(50, 48, 6, 4.4, p.ink)


def _rabbit(p: Pen) -> None:
    p.oval(84, 84, 12, 11, WHITE, edge=2.4)
    for x, turn in ((36, -8), (64, 8)):
        p.oval(x, 24, 11, 25, turn=turn)
        p.oval(x, 25, 5, 18, _PINK, turn=turn)
    p.blob([(50, 58), (72, 68), (80, 88), (70, 100), (30, 100), (20, 88), (28, 68)])
    p.oval(50, 56, 30, 22, edge=2.4)
    p.eyes((37, 52), (63, 52), radius=4)
    p.poly([(44, 59), (56, 59), (50, 64)], _PINK)
    p.box(45, 66, 55, 76, WHITE, radius=1)
    p.line([(50, 66), (50, 75)], 1.6, p.crease)
    for x in (34, 66):
        p.oval(x, 95, 12, 5, p.pale)


def _bird(p: Pen) -> None:
    p.poly([(26, 64), (0, 54), (6, 68), (0, 82), (28, 74)], p.deep)
    p.blob([(52, 54), (60, 28), (78, 8), (84, 26), (76, 52)], p.deep)
    p.blob([(20, 68), (38, 54), (60, 50), (80, 50), (84, 66), (72, 82), (50, 88), (30, 80)])
    p.oval(76, 50, 15, 14)
    p.poly([(87, 42), (100, 50), (87, 57)], _BEAK)
    p.eyes((79, 47), radius=3.6)
    p.blob([(62, 66), (56, 38), (38, 14), (22, 6), (18, 22), (22, 40), (30, 58), (46, 70)], edge=2.4)
    for points in ([(20, 24), (44, 46)], [(24, 42), (46, 56)]):
        p.line(points, 2.4, p.crease)


def _fish(p: Pen) -> None:
    p.poly([(26, 42), (34, 24), (52, 18), (66, 44)], p.deep)
    p.poly([(36, 84), (44, 100), (58, 98), (56, 82)], p.deep)
    p.poly([(62, 62), *ellipse(62, 62, 38, 38, -48, 48)], p.deep)
    for turn in (-24, 0, 24):
        p.line([(72, 62), ellipse(62, 62, 34, 34, turn, turn, 1)[0]], 2.4, p.crease)
    p.oval(39, 62, 39, 28)
    for x in (40, 53):
        p.line(ellipse(x, 62, 9, 17, -70, 70), 2.6, p.crease)
    p.oval(20, 55, 9.5, 9.5, WHITE, edge=2.2)
    p.oval(18, 55, 4.6, 4.6, _DARK)
    p.path([(3, 70), (10, 72), (14, 70)], 2.4, p.crease)


def _butterfly(p: Pen) -> None:
    feeler = [(49, 30), (44, 14), (34, 2)]
    upper = [(48, 50), (42, 28), (22, 8), (3, 8), (1, 30), (12, 50), (34, 56)]
    lower = [(48, 52), (28, 54), (12, 66), (14, 88), (28, 97), (42, 84)]
    for side in (list, mirror):
        p.path(side(feeler), 3.4)
        p.blob(side(lower), p.deep, edge=2.4)
        p.blob(side(upper), edge=2.4)
        p.blob(side([(12, 19), (22, 17), (25, 28), (16, 32)]), p.pale)
        p.blob(side([(23, 71), (32, 71), (31, 82), (23, 82)]), p.pale)
    p.oval(50, 54, 5.5, 28, p.ink)


def _woman(p: Pen) -> None:
    p.blob([(50, 0), (67, 5), (73, 26), (76, 56), (64, 62), (36, 62), (24, 56), (27, 26), (33, 5)], _HAIR)
    for x in (39, 53):
        p.box(x, 84, x + 8, 98, _SKIN)
        p.box(x - 1, 95, x + 9, 100, _DARK, 2)
    p.poly([(37, 42), (63, 42), (62, 56), (90, 89), (10, 89), (38, 56)])
    for side in (list, mirror):
        p.line(side([(35, 48), (19, 66)]), 8, _SKIN)
    p.line([(39, 57), (61, 57)], 4, p.deep)
    p.oval(50, 24, 16, 17, _SKIN)
    p.blob([(32, 24), (35, 9), (50, 3), (65, 9), (68, 24), (58, 15), (48, 12)], _HAIR)
    p.oval(43, 27, 2.6, 3.2, _DARK)
    p.oval(57, 27, 2.6, 3.2, _DARK)
    p.path([(45, 34), (50, 36), (55, 34)], 2, (190, 70, 70))


def _elderly(p: Pen) -> None:
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


def _dancer(p: Pen) -> None:
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


def _astronaut(p: Pen) -> None:
    p.box(14, 34, 86, 74, _GREY, 6)
    for side in (list, mirror):
        p.line(side([(30, 56), (12, 74)]), 15)
        p.oval(*side([(10, 78)])[0], 8.5, 8, _SILVER)
    for x in (29, 52):
        p.box(x, 72, x + 19, 98, radius=4)
        p.box(x - 2, 90, x + 21, 100, _SILVER, 4)
    p.box(27, 44, 73, 84, radius=12, edge=2.4)
    p.oval(50, 27, 28, 27, edge=2.4)
    p.oval(50, 28, 20, 17, _GLASS if p.is_dark else (40, 52, 84))
    p.oval(43, 22, 5.5, 4, WHITE, turn=-25)
    p.box(39, 62, 61, 76, _SILVER, 2)
    for x, light in ((45, (220, 60, 60)), (55, (60, 160, 220))):
        p.oval(x, 69, 3, 3, light)


def _wheel(p: Pen, x: float, y: float, radius: float) -> None:
    p.oval(x, y, radius, radius, _DARK, edge=2.4)
    p.oval(x, y, radius * 0.48, radius * 0.48, _SILVER)


def _car(p: Pen) -> None:
    p.blob([(14, 54), (26, 20), (36, 9), (50, 8), (66, 9), (76, 20), (90, 54)])
    p.box(0, 44, 100, 86, radius=13)
    p.poly([(25, 45), (34, 22), (40, 18), (48, 18), (48, 45)], _GLASS)
    p.poly([(54, 45), (54, 18), (63, 18), (69, 22), (79, 45)], _GLASS)
    p.line([(29, 42), (37, 24)], 3, WHITE)
    p.line([(51, 48), (51, 80)], 2.4, p.crease)
    p.line([(57, 55), (64, 55)], 3, p.crease)
    p.oval(95, 58, 5, 6, _LAMP)
    p.box(0, 54, 5, 64, (225, 60, 50), 2)
    _wheel(p, 25, 83, 17)
    _wheel(p, 76, 83, 17)


def _bus(p: Pen) -> None:
    p.box(0, 5, 100, 88, radius=9)
    for x0, x1 in ((6, 24), (29, 47), (52, 70)):
        p.box(x0, 17, x1, 44, _GLASS, 3)
    p.poly([(76, 17), (94, 17), (97, 50), (76, 50)], _GLASS)
    p.box(0, 54, 73, 61, p.pale)
    p.line([(73, 12), (73, 86)], 2.4, p.crease)
    p.oval(95, 70, 4.5, 5, _LAMP)
    _wheel(p, 24, 85, 15)
    _wheel(p, 78, 85, 15)


def _bicycle(p: Pen) -> None:
    rear, front, pedals, seat, head = (22, 76), (78, 76), (47, 77), (39, 44), (67, 42)
    for x, y in (rear, front):
        p.ring(x, y, 24, 6.5)
        p.oval(x, y, 3, 3)
    for a, b in ((rear, pedals), (rear, seat), ((37, 36), pedals), (pedals, head), (seat, head), ((64, 28), front)):
        p.line([a, b], 6.5)
    p.line([(28, 34), (46, 34)], 8, _GREY)
    p.path([(64, 30), (61, 16), (68, 10), (80, 10), (90, 20)], 6, _GREY)
    p.oval(*pedals, 5, 5, _GREY)


def _boat(p: Pen) -> None:
    p.line([(49, 2), (49, 70)], 4.5, _WOOD)
    p.poly([(54, 4), (54, 62), (94, 62)])
    p.poly([(44, 14), (44, 62), (8, 62)], p.pale)
    p.poly([(0, 69), (100, 69), *ellipse(50, 69, 50, 31, 8, 172)])
    p.poly([(2, 75), (98, 75), (95, 82), (5, 82)], p.deep)


def _plane(p: Pen) -> None:
    def heading(points: Sequence[Point]) -> list[Point]:
        """Coordinates (along, across) relative to the plane, as picture coordinates; it flies to the upper right."""
        return [(50 + 0.707 * (u + v), 50 + 0.707 * (v - u)) for u, v in points]

    for side in (1, -1):
        p.poly(heading([(24, 4 * side), (-8, 60 * side), (-20, 52 * side), (-12, 4 * side)]), edge=2)
        p.poly(heading([(-36, 3 * side), (-50, 22 * side), (-60, 16 * side), (-54, 3 * side)]), p.deep)
    flank = [(62, 7), (44, 10), (-30, 9), (-60, 4)]
    p.blob(heading([(70, 0), *flank, (-62, 0), *((u, -v) for u, v in flank[::-1])]), edge=2)
    p.poly(heading([(60, -6), (60, 6), (52, 8), (52, -8)]), _GLASS)
    for u in (40, 30, 20, 10, 0, -10, -20):
        p.oval(*heading([(u, 0)])[0], 2.4, 2.4, _GLASS)


def _rocket(p: Pen) -> None:
    p.blob([(38, 74), (30, 88), (41, 91), (50, 103), (59, 91), (70, 88), (62, 74)], _FLAME)
    p.blob([(44, 74), (43, 86), (50, 95), (57, 86), (56, 74)], _LAMP)
    fin = [(36, 46), (10, 68), (12, 86), (36, 76)]
    for side in (list, mirror):
        p.poly(side(fin), p.deep)
    flank = [(50, 0), (64, 20), (72, 44), (68, 64), (62, 78)]
    side = smooth([flank[0], *flank, flank[-1]])
    p.poly(side + mirror(side)[::-1])
    p.path([(36, 21), (50, 24), (64, 21)], 2.4, p.crease)
    p.oval(50, 42, 11, 11, p.crease)
    p.oval(50, 42, 8, 8, _GLASS)
    p.line([(36, 70), (64, 70)], 4, p.deep)


def _chair(p: Pen) -> None:
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


def _book(p: Pen) -> None:
    print_colour = p.pale if p.is_light else p.main
    p.poly([(0, 18), (50, 26), (100, 18), (100, 92), (50, 100), (0, 92)])
    for side in (list, mirror):
        page = smooth([(11, 10), (11, 10), (28, 6), (42, 10), (50, 18), (50, 18)])
        foot = smooth([(50, 85), (50, 85), (42, 77), (28, 74), (11, 78), (11, 78)])
        p.poly(side(page + foot), _PAPER, edge=2.2)
        for y in (26, 40, 54, 68):
            p.path(side([(19, y - 2), (30, y - 3), (42, y)]), 4.6, print_colour)
    p.line([(50, 20), (50, 98)], 3, p.crease)


def _umbrella(p: Pen) -> None:
    p.line([(50, 0), (50, 10)], 4, _GREY)
    p.path([(50, 40), (50, 70), (50, 88), (56, 97), (66, 96), (70, 87)], 5.5, _WOOD)
    scallops = [point for x in (87.5, 62.5, 37.5, 12.5) for point in ellipse(x, 54, 12.5, 9, 0, -180, steps=12)]
    p.poly(ellipse(50, 54, 50, 48, 180, 360) + scallops)
    left_rib, right_rib = (
        [(50, 6), (50, 6), (50 + lean, 22), (50 + reach, 54), (50 + reach, 54)]
        for lean, reach in ((-18, -25), (18, 25))
    )
    p.poly(smooth(left_rib) + ellipse(37.5, 54, 12.5, 9, 180, 360), p.deep)
    p.poly(smooth(right_rib) + ellipse(87.5, 54, 12.5, 9, 180, 360) + ellipse(50, 54, 50, 48, 360, 270), p.deep)


def _ball(p: Pen) -> None:
    p.oval(50, 51, 49, 49)
    for near, far in ((1.18, 1.48), (1.84, 2.16), (2.52, 2.8)):
        p.poly(_stripe(50, 51, 49, near, far), p.pale)


def _stripe(x: float, y: float, radius: float, near: float, far: float) -> list[Point]:
    """The outline of a stripe on a ball: the area between two circles around a point outside of the ball.

    The point is two of the ball's radii from its centre; the circles have ``near`` and ``far`` times the ball's radius.
    """
    distance, aim = 2.0, -60
    outline: list[Point] = []
    for reach, order in ((near, 1), (far, -1)):
        half = math.degrees(math.acos((distance**2 + reach**2 - 1) / (2 * distance * reach)))
        away = math.radians(aim + 180)
        hub = x - radius * distance * math.cos(away), y - radius * distance * math.sin(away)
        arc = ellipse(*hub, radius * reach, radius * reach, aim + 180 - half, aim + 180 + half, steps=16)
        outline += arc[::order]
    return outline


def _balloon(p: Pen) -> None:
    p.path([(50, 72), (46, 80), (53, 90), (50, 100)], 3.6, WHITE)
    p.poly([(50, 60), (41, 73), (59, 73)], p.deep)
    p.blob([(50, 0), (77, 9), (86, 32), (73, 56), (50, 68), (27, 56), (14, 32), (23, 9)])
    p.oval(34, 21, 6, 11, p.pale, turn=30)


def _house(p: Pen) -> None:
    p.box(13, 42, 87, 100)
    p.poly([(50, 0), (100, 47), (0, 47)], p.deep, edge=2.4)
    p.box(55, 64, 74, 100, _WOOD)
    p.oval(70, 83, 2, 2, _LAMP)
    p.box(22, 58, 46, 80, _GLASS, edge=2.4)
    p.line([(34, 58), (34, 80)], 2.4, p.crease)
    p.line([(22, 69), (46, 69)], 2.4, p.crease)


def _tree(p: Pen) -> None:
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


def _flower(p: Pen) -> None:
    p.line([(50, 50), (50, 98)], 6, _LEAF)
    leaf = [(50, 96), (36, 72), (14, 68), (24, 90)]
    for side in (list, mirror):
        p.blob(side(leaf), _LEAF)
    for petal in range(5):
        angle = math.radians(petal * 72 - 90)
        p.oval(50 + 20 * math.cos(angle), 34 + 19 * math.sin(angle), 17, 14, edge=2.4, turn=petal * 72 - 90)
    yellowish = p.main[0] > 240 and p.main[2] < 60
    p.oval(50, 34, 10, 10, (150, 80, 30) if yellowish else (252, 205, 50), edge=2)


def _rainbow(p: Pen) -> None:
    for outer, fill in ((50, p.main), (41, p.pale), (34, p.main), (25, p.deep)):
        inner = 18
        p.poly(ellipse(50, 78, outer, outer * 1.1, 180, 360) + ellipse(50, 78, inner, inner * 1.1, 360, 180), fill)


_DRAWINGS: dict[str, Callable[[Pen], None]] = {
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
