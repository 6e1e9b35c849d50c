"""Shapes for drawing objects: filled ovals, boxes, polygons, smooth curves and lines, and one outline around them all.

Coordinates are in units of 1/100 of the object's side, x to the right and y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

WHITE = (252, 252, 252)

_OUTLINE = 0.032  # width of the outline as a fraction of the object's side: about one pixel at 32 pixels


class Pen:
    """Draws shapes on a square canvas of 100 x 100 units; ``outline`` puts one outline around all of them.

    Shapes are filled with ``main``, the object's colour, unless ``fill`` is given. ``edge`` draws the border of a shape
    as a line of that width. ``deep`` and ``pale`` are a darker and a lighter shade of ``main``, ``ink`` is the colour
    of the outline and of small details, ``crease`` that of lines inside the object. ``canvas`` is in pixels.
    """

    def __init__(self, main: Colour, canvas: int, is_dark: bool, is_light: bool) -> None:
        self.image = Image.new("RGBA", (canvas, canvas))
        self.main, self.is_dark, self.is_light = main, is_dark, is_light
        # Dark lines would be invisible on a black object, so its lines and details are light.
        self.ink = (205, 208, 220) if is_dark else (38, 34, 48)
        self.deep = (86, 88, 100) if is_dark else (204, 210, 222) if is_light else mix(main, (30, 15, 30), 0.22)
        self.pale = (134, 138, 150) if is_dark else (158, 174, 200) if is_light else mix(main, WHITE, 0.58)
        self.crease = mix(main, self.ink, 0.45 if is_light else 0.6)
        self._margin = max(2, round(canvas * _OUTLINE))
        self._unit = (canvas - 2 * self._margin) / 100
        self._draw = ImageDraw.Draw(self.image)
        self._outlined = False

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
        self._draw.polygon(self._to_pixels(points), fill or self.main)
        if edge:
            self.line([*points, points[0]], edge, self.crease)

    def blob(self, points: Sequence[Point], fill: Colour | None = None, edge: float = 0) -> None:
        """A filled closed curve, smooth through ``points``."""
        self.poly(smooth([points[-1], *points, points[0], points[1]]), fill, edge)

    def line(self, points: Sequence[Point], width: float, fill: Colour | None = None) -> None:
        """A line with round ends and corners."""
        placed = self._to_pixels(points)
        pixels = max(1, round(width * self._unit))
        self._draw.line(placed, fill or self.main, pixels)
        r = pixels / 2
        for x, y in placed:  # Pillow's own joints leave stray pixels along curves
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill or self.main)

    def path(self, points: Sequence[Point], width: float, fill: Colour | None = None) -> None:
        """A line, smooth through ``points``."""
        self.line(smooth([points[0], *points, points[-1]]), width, fill)

    def ring(self, x: float, y: float, radius: float, width: float, fill: Colour | None = None) -> None:
        self.line(ellipse(x, y, radius - width / 2, radius - width / 2, 0, 364), width, fill)

    def eyes(self, *centres: Point, radius: float = 3.2) -> None:
        for x, y in centres:
            self.oval(x, y, radius, radius * 1.15, self.ink)

    def outline(self) -> None:
        """Draw an outline around all shapes so far, once; shapes drawn afterwards are outside of it."""
        if self._outlined:
            return
        self._outlined = True
        alpha = self.image.getchannel("A")
        grown = alpha
        for step in range(16):
            angle = step * math.tau / 16
            moved = Image.new("L", alpha.size)  # not ImageChops.offset, which wraps around at the edges
            moved.paste(alpha, (round(self._margin * math.cos(angle)), round(self._margin * math.sin(angle))))
            grown = ImageChops.lighter(grown, moved)
        outlined = Image.new("RGBA", self.image.size, (*self.ink, 0))
        outlined.putalpha(grown)
        outlined.paste(self.image, mask=alpha)
        self.image, self._draw = outlined, ImageDraw.Draw(outlined)

    def _to_pixels(self, points: Iterable[Point]) -> list[Point]:
        return [(self._margin + x * self._unit, self._margin + y * self._unit) for x, y in points]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour between ``a`` and ``b``; ``share`` 0 is ``a``, 1 is ``b``."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


def ellipse(
    x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360, steps: int = 40, turn: float = 0
) -> list[Point]:
    """Points on an ellipse from angle ``start`` to ``stop``, rotated by ``turn``; degrees clockwise from the right."""
    angles = (math.radians(start + (stop - start) * step / steps) for step in range(steps + 1))
    points = [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]
    return rotate(points, x, y, turn) if turn else points


def rotate(points: Iterable[Point], x: float, y: float, turn: float) -> list[Point]:
    """``points`` rotated around (x, y) by ``turn`` degrees, clockwise."""
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return [(x + (u - x) * cos - (v - y) * sin, y + (u - x) * sin + (v - y) * cos) for u, v in points]


def smooth(points: Sequence[Point], steps: int = 8) -> list[Point]:
    """Points on the Catmull-Rom curve from the second point to the second to last."""
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
    """``points`` with left and right exchanged."""
    return [(100 - x, y) for x, y in points]
