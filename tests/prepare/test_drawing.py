"""Drawings match the ground truth: right colours, distinct shapes, reproducible bytes, bounded cost."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from stages.common.world.scene import Group, Scene
from stages.common.world.vocabulary import BACKGROUNDS, COLOURS, KINDS
from stages.prepare.contact_sheet import contact_sheet
from stages.prepare.drawing import backgrounds
from stages.prepare.drawing import compose as composition
from stages.prepare.drawing.backgrounds import draw_background
from stages.prepare.drawing.compose import compose
from stages.prepare.drawing.objects import draw_object

ROOT = Path(__file__).resolve().parents[2]
SIZES = (28, 32, 64)


def scene(kind: str = "dog", colour: str = "red", side: float = 0.3, background: str = "seaside") -> Scene:
    box = (0.35, 0.35, 0.35 + side, 0.35 + side)
    return Scene("s", background, (Group(kind, colour, 1, 1, 1, (box,)),), ())


def digest(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def nearest_colours(sprite: Image.Image) -> Counter[str]:
    """The number of opaque pixels close to each colour of the vocabulary; pixels close to none are not counted."""
    counts: Counter[str] = Counter()
    data = sprite.tobytes()
    for red, green, blue, alpha in zip(*(data[channel::4] for channel in range(4)), strict=True):
        if alpha < 200:
            continue
        distances = {name: (red - r) ** 2 + (green - g) ** 2 + (blue - b) ** 2 for name, (r, g, b) in COLOURS.items()}
        name = min(distances, key=distances.__getitem__)
        if distances[name] < 40**2:
            counts[name] += 1
    return counts


def difference(first: Image.Image, second: Image.Image) -> float:
    """Mean absolute difference on a grey background, 0 to 255."""
    grounds = [Image.new("RGB", first.size, (128, 128, 128)) for _ in range(2)]
    for ground, sprite in zip(grounds, (first, second), strict=True):
        ground.paste(sprite, mask=sprite)
    return sum(ImageStat.Stat(ImageChops.difference(*grounds)).mean) / 3


@pytest.mark.parametrize("kind", KINDS)
def test_most_pixels_of_an_object_have_its_colour(kind: str) -> None:
    for size in SIZES:
        for colour in COLOURS:
            counts = nearest_colours(draw_object(kind, colour, size, False))
            assert counts.most_common(1)[0][0] == colour, (size, colour, counts)


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_fills_its_box_and_reaches_its_lower_edge(kind: str) -> None:
    for colour in COLOURS:
        sprite = draw_object(kind, colour, 64, False)
        assert (sprite.mode, sprite.size) == ("RGBA", (64, 64))
        left, top, right, bottom = sprite.getchannel("A").point(lambda alpha: 255 * (alpha > 128)).getbbox()
        assert max(right - left, bottom - top) >= 0.9 * 64
        if KINDS[kind].layer == "ground":
            assert bottom >= 62
        if KINDS[kind].support:
            assert top <= 0.12 * 64, "an object on it would not touch it"


def test_kinds_differ_in_shape_in_every_colour() -> None:
    for colour in COLOURS:
        sprites = {kind: draw_object(kind, colour, 32, False) for kind in KINDS}
        for a, b in combinations(KINDS, 2):
            flipped = draw_object(b, colour, 32, True)
            nearest = min(difference(sprites[a], sprites[b]), difference(sprites[a], flipped))
            assert nearest > 12, (a, b, colour, nearest)


def test_every_object_is_visible_on_every_background() -> None:
    # Its outline or its area must differ from the background, also white on snow and black in space.
    for background in BACKGROUNDS:
        ground = draw_background(background, 96, random.Random(1)).crop((32, 60, 64, 92))
        for kind in KINDS:
            for colour in COLOURS:
                painted, sprite = ground.copy(), draw_object(kind, colour, 32, False)
                painted.paste(sprite, mask=sprite)
                red, green, blue = ImageChops.difference(ground, painted).split()
                contrast = ImageChops.lighter(ImageChops.lighter(red, green), blue)
                mask = sprite.getchannel("A").point(lambda alpha: 255 * (alpha > 200))
                assert ImageStat.Stat(contrast, mask).mean[0] > 25, (kind, colour, background)


def test_flipping_mirrors() -> None:
    plain, flipped = (draw_object("dog", "red", 32, flip) for flip in (False, True))
    assert digest(plain.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == digest(flipped) != digest(plain)


def digest_of_pictures(kinds: Iterable[str]) -> str:
    objects = {kind: digest(draw_object(kind, "blue", 30, True)) for kind in kinds}
    scenes = [digest(compose(scene(background=name), 96, random.Random(7))) for name in BACKGROUNDS]
    return repr((sorted(objects.items()), scenes))


def test_another_process_draws_the_same_bytes_in_another_order() -> None:
    code = f"from {__name__} import *; print(digest_of_pictures(reversed(KINDS)))"
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": paths}
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert other.stdout.strip() == digest_of_pictures(KINDS), other.stderr


def test_unknown_names_are_refused() -> None:
    with pytest.raises(KeyError):
        draw_object("unicorn", "red", 32, False)
    with pytest.raises(KeyError):
        draw_object("dog", "mauve", 32, False)
    with pytest.raises(KeyError):
        draw_background("desert", 96, random.Random(0))


@pytest.mark.parametrize("image_size", [96, 224])
def test_compose_paints_the_object_into_its_box_only(image_size: int) -> None:
    picture = compose(scene(), image_size, random.Random(3))
    empty = draw_background("seaside", image_size, random.Random(3))
    assert (picture.mode, picture.size) == ("RGB", (image_size, image_size))
    box = ImageChops.difference(picture, empty).getbbox()
    expected = [0.35 * image_size, 0.35 * image_size, 0.65 * image_size, 0.65 * image_size]
    # A dog is as wide as its box, nearly as tall, and reaches the box's lower edge.
    assert all(abs(a - b) <= 0.04 * image_size for a, b in zip(box, expected, strict=True)), (box, expected)


def test_groups_are_painted_in_order() -> None:
    box = (0.3, 0.3, 0.6, 0.6)
    both = Scene("s", "room", (Group("ball", "red", 1, 1, 1, (box,)), Group("ball", "blue", 1, 1, 1, (box,))), ())
    counts = nearest_colours(compose(both, 96, random.Random(0)).convert("RGBA"))
    assert counts["blue"] > 200 and counts["red"] < 20


def test_drawing_a_scene_does_not_modify_cached_drawings() -> None:
    before = digest(draw_background("night", 96, random.Random(5)))
    compose(scene(background="night"), 96, random.Random(5))
    assert digest(draw_background("night", 96, random.Random(5))) == before


def test_backgrounds_have_variants_and_differ_from_each_other() -> None:
    for name in BACKGROUNDS:
        drawings = {digest(draw_background(name, 96, random.Random(seed))) for seed in range(40)}
        assert len(drawings) > 10, name
    pictures = {name: draw_background(name, 96, random.Random(0)).convert("RGBA") for name in BACKGROUNDS}
    for a, b in combinations(BACKGROUNDS, 2):
        assert difference(pictures[a], pictures[b]) > 12, (a, b)


def test_the_number_of_cached_drawings_is_bounded() -> None:
    # With too many sprite sizes, the cache would overflow and every scene would draw its objects again.
    for image_size in (96, 224, 384):
        sizes = {composition._sprite_size(0.28 + 0.07 * step / 999, image_size) for step in range(1000)}
        # Flipped and not flipped, all of them fit in the cache.
        assert 2 * len(sizes) * len(KINDS) * len(COLOURS) <= draw_object.cache_parameters()["maxsize"]
    assert backgrounds._VARIANTS * len(BACKGROUNDS) <= backgrounds._background.cache_parameters()["maxsize"]
    draw_object.cache_clear()
    for step in range(200):
        compose(scene(side=0.28 + 0.07 * step / 199), 96, random.Random(step))
    assert draw_object.cache_info().misses <= 2 * 5


def test_the_contact_sheet_shows_everything() -> None:
    small, large = contact_sheet(16, 1), contact_sheet(16, 2)
    assert large.width > small.width and len(small.getcolors(maxcolors=1_000_000)) > 1000
