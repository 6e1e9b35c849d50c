"""Filled shapes on a square canvas, and one outline around them all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

_SUPERSAMPLING = 4
_RIM = 0.032  # width of the outline, as a share of the object's size: about one pixel at 32

_WHITE = (252, 252, 252)


class Pen:
    """Draws filled shapes on a square of 100 x 100 units, y downwards; ``seal`` puts one outline around them all."""

    def __init__(self, main: Colour, canvas: int, is_dark: bool, is_light: bool) -> None:
        self.image = Image.new("RGBA", (canvas, canvas))
        self.main, self.is_dark, self.is_light = main, is_dark, is_light
        # On a black object a dark line would vanish, so lines and accents are light there.
        self.ink = (205, 208, 220) if is_dark else (38, 34, 48)
        self.deep = (86, 88, 100) if is_dark else (204, 210, 222) if is_light else mix(main, (30, 15, 30), 0.22)
        self.pale = (134, 138, 150) if is_dark else (158, 174, 200) if is_light else mix(main, _WHITE, 0.58)
        self.crease = mix(main, self.ink, 0.45 if is_light else 0.6)
        self._rim = max(2, round(canvas * _RIM))
        self._unit = (canvas - 2 * self._rim) / 100
        self._draw = ImageDraw.Draw(self.image)
        self._sealed = False

    def oval(
        self, x: float, y: float, rx: float, ry: float, fill: Colour | None = None, edge: float = 0, turn: float = 0
    ) -> None:
        self.poly(ellipse(x, y, rx, ry, turn=turn), fill, edge)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: Colour | None = None, radius: float = 0, edge: float = 0
    ) -> None:
        corners = (
            (x1 - radius, y0 + radius, -90),
            (x1 - radius, y1 - radius, 0),
            (x0 + radius, y1 - radius, 90),
            (x0 + radius, y0 + radius, 180),
        )
        points = [p for x, y, start in corners for p in ellipse(x, y, radius, radius, start, start + 90, steps=6)]
        self.poly(points, fill, edge)

    def poly(self, points: Sequence[Point], fill: Colour | None = None, edge: float = 0) -> None:
        self._draw.polygon(self._place(points), fill or self.main)
        if edge:
            self.line([*points, points[0]], edge, self.crease)

    def blob(self, points: Sequence[Point], fill: Colour | None = None, edge: float = 0) -> None:
        """A closed smooth curve through ``points``."""
        self.poly(smooth([points[-1], *points, points[0], points[1]]), fill, edge)

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
        self.line(smooth([points[0], *points, points[-1]]), width, fill)

    def ring(self, x: float, y: float, radius: float, width: float, fill: Colour | None = None) -> None:
        self.line(ellipse(x, y, radius - width / 2, radius - width / 2, 0, 364), width, fill)

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


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """``share`` of b, the rest a."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


def ellipse(
    x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360, steps: int = 40, turn: float = 0
) -> list[Point]:
    """Points on an ellipse from angle ``start`` to ``stop`` (degrees, clockwise from the right), turned by ``turn``."""
    angles = (math.radians(start + (stop - start) * step / steps) for step in range(steps + 1))
    points = [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]
    return turned(points, x, y, turn) if turn else points


def turned(points: Iterable[Point], x: float, y: float, turn: float) -> list[Point]:
    """``points`` turned about (x, y) by ``turn`` degrees."""
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return [(x + (u - x) * cos - (v - y) * sin, y + (u - x) * sin + (v - y) * cos) for u, v in points]


def smooth(points: Sequence[Point], steps: int = 8) -> list[Point]:
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


def mirror(points: Sequence[Point]) -> list[Point]:
    return [(100 - x, y) for x, y in points]
