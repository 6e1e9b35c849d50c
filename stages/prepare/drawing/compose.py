"""Draws a scene of the built-in world: the background, then the objects of each group on top of it.

``backgrounds`` draws with ``shapes``, ``sprites`` takes OpenMoji's drawings.
"""

from __future__ import annotations

import random

from PIL import Image

from stages.common.world.scene import Scene
from stages.prepare.drawing.backgrounds import draw_background
from stages.prepare.drawing.sprites import draw_object

_SIZES_PER_SIDE = 48  # object sizes are multiples of 1/48 of the image side, which bounds the number of cached sprites


def compose(scene: Scene, image_size: int, rng: random.Random) -> Image.Image:
    """The RGB picture of ``scene``, ``image_size`` x ``image_size`` pixels; groups are drawn in their order."""
    image = draw_background(scene.background, image_size, rng)
    for group in scene.groups:
        for x0, _, x1, y1 in group.boxes:
            size = _sprite_size(x1 - x0, image_size)
            sprite = draw_object(group.kind, group.colour, size, rng.random() < 0.5)
            image.paste(sprite, (round((x0 + x1) / 2 * image_size - size / 2), round(y1 * image_size) - size), sprite)
    return image


def _sprite_size(fraction: float, image_size: int) -> int:
    """The side of an object in pixels, an even number, for a box of ``fraction`` of the image side."""
    step = 2 * max(1, image_size // (2 * _SIZES_PER_SIDE))
    return max(step, round(fraction * image_size / step) * step)
