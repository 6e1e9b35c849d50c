"""A whole scene: its background, then its objects."""

from __future__ import annotations

import random

from PIL import Image

from stages.common.world.scene import Scene
from stages.prepare.drawing.backgrounds import draw_background
from stages.prepare.drawing.objects import draw_object

_SIZES_PER_SIDE = 48  # object sizes are multiples of this share of the image side, which bounds the cache


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
