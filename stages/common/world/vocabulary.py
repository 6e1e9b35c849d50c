"""The built-in world's vocabulary: what a picture can show (kinds, colours, backgrounds), and the Chinese words for it.

Texts are written (``stages/prepare``) and scored (``stages/evaluate/score``) with the same vocabulary. The kinds of
object are in ``data/world/kinds.yaml``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from stages.common.core.errors import InputError
from stages.common.core.yaml_files import Strict, read_checked

KINDS_FILE = Path(__file__).parents[3] / "data/world/kinds.yaml"
ATTRIBUTION = "Drawings of objects: OpenMoji 17 (https://openmoji.org), CC BY-SA 4.0, some of them recoloured."
NEAR_SIZE = 0.2  # metres; smaller things are drawn small only

Place = Literal["sky", "ground", "water", "table"]
Parent = Literal["animal", "person", "vehicle", "object", "building", "plant", "food", "phenomenon"]


class Kind(Strict):
    """One kind of object. ``words[0]`` is the most common name, the others are synonyms.

    ``parent`` is the class of things that it belongs to: a cat that is called a dog is misnamed, because both are
    animals; a dog where only a house is left unnamed is hallucinated. ``recolour``: the fills of the drawing that take
    the colour of the object, and shades of it; a kind without them always has its natural ``colour`` (None: several).
    """

    emoji: str  # file name of the drawing in OpenMoji, without .svg
    words: tuple[str, ...] = Field(min_length=1)
    measure: str  # measure word: 只
    parent: Parent
    place: Place
    homes: tuple[str, ...]  # backgrounds on which this kind is more likely
    size: Annotated[float, Field(gt=0)]  # of the real thing, metres
    recolour: tuple[str, ...]
    colour: str | None
    parts: tuple[str, str]  # clauses that are true of the drawing
    support: bool  # another object may stand on it
    shelter: bool  # another object may be under it


def load_kinds(path: Path) -> dict[str, Kind]:
    """The kinds in a file, the most frequent first. Raises InputError that names the kind and what is wrong."""
    kinds = read_checked(path, dict[str, Kind])
    named: dict[str, str] = {}
    for name, kind in kinds.items():
        if unknown := [home for home in kind.homes if home not in BACKGROUNDS]:
            raise InputError(f"{path}: {name}: no background is called {unknown[0]}; use {', '.join(BACKGROUNDS)}")
        if kind.colour is not None and kind.colour not in COLOURS:
            raise InputError(f"{path}: {name}: no colour is called {kind.colour}; use {', '.join(COLOURS)}")
        for word in kind.words:
            if word in named:
                raise InputError(f"{path}: {word} is a word of {named[word]} and of {name}; keep it in one of them")
            named[word] = name
    return kinds


# RGB of each colour in drawings, which also use lighter and darker shades of it.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 38, 38),
    "orange": (245, 140, 25),
    "yellow": (250, 215, 45),
    "green": (40, 165, 70),
    "blue": (45, 105, 225),
    "purple": (145, 65, 190),
    "white": (245, 245, 245),
    "black": (35, 35, 40),
    "brown": (140, 90, 50),
    "grey": (150, 152, 158),
    "pink": (245, 150, 180),
}
PAINTS = tuple(COLOURS)[:8]  # colours that a recoloured object can have; the others are natural colours only
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("红色",),
    "orange": ("橙色", "橘色"),
    "yellow": ("黄色",),
    "green": ("绿色",),
    "blue": ("蓝色",),
    "purple": ("紫色",),
    "white": ("白色",),
    "black": ("黑色",),
    "brown": ("棕色", "褐色"),
    "grey": ("灰色",),
    "pink": ("粉色", "粉红色"),
}


@dataclass(frozen=True)
class Background:
    """The setting of a scene. ``words[0]`` is the most common name, the others are synonyms."""

    words: tuple[str, ...]  # 海边: used between 在 and 有
    details: tuple[str, ...]  # clauses that are true of every drawing of this background
    moods: tuple[str, ...]


BACKGROUNDS: dict[str, Background] = {
    "seaside": Background(
        ("海边", "沙滩上"), ("后面是蓝蓝的大海", "近处是金色的沙子", "海浪轻轻拍打着岸边"), ("悠闲", "惬意")
    ),
    "street": Background(
        ("街道上", "马路边"), ("路面是灰色的", "后面立着一排高楼", "路中间画着白线"), ("热闹", "繁忙")
    ),
    "grassland": Background(
        ("草地上", "草原上"), ("地面长满了青草", "天空十分晴朗", "后面的小丘连绵起伏"), ("清新", "自在")
    ),
    "snow": Background(("雪地里", "雪原上"), ("地面铺着厚厚的积雪", "空中飘着雪片", "天空灰蒙蒙的"), ("寒冷", "安静")),
    "night": Background(("夜空下", "夜色中"), ("天空是深蓝的", "弯弯的月亮挂在天上", "地面一片昏暗"), ("静谧", "神秘")),
    "space": Background(
        ("太空中", "宇宙中"), ("四周漆黑一片", "到处是闪烁的星光", "下方露出一颗行星的边缘"), ("浩瀚", "奇妙")
    ),
    "valley": Background(
        ("瀑布前", "山谷里"), ("水流从高处落下", "两边是陡峭的岩壁", "下面是清澈的水潭"), ("壮观", "清凉")
    ),
    "room": Background(
        ("房间里", "屋子里"), ("墙壁是米黄的", "地板由木条铺成", "墙上开着一扇明亮的窗"), ("温馨", "舒适")
    ),
    "stage": Background(
        ("舞台上", "剧场里"), ("两边挂着深红的幕布", "灯光从上面照下来", "台面很光滑"), ("隆重", "欢快")
    ),
}

# (row, column) of the 3 x 3 grid -> words for the position.
POSITION_WORDS: dict[tuple[int, int], tuple[str, ...]] = {
    (0, 0): ("左上方", "左上角"),
    (0, 1): ("正上方", "上方"),
    (0, 2): ("右上方", "右上角"),
    (1, 0): ("左侧", "左边"),
    (1, 1): ("正中间", "中央"),
    (1, 2): ("右侧", "右边"),
    (2, 0): ("左下方", "左下角"),
    (2, 1): ("正下方", "下方"),
    (2, 2): ("右下方", "右下角"),
}
FAR_WORDS = ("远处", "远方", "较远处")  # one of them precedes the name of a far thing in its clause
COUNT_WORDS: dict[int, str] = {1: "一", 2: "两", 3: "三"}
RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "on": ("上面", "上边"),
    "under": ("下面", "底下"),
    "beside": ("旁边", "一旁"),
}


def _load_or_exit() -> dict[str, Kind]:
    """The world's kinds; modules build tables from them on import, before a stage can report an error."""
    try:
        return load_kinds(KINDS_FILE)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


KINDS = _load_or_exit()


@lru_cache(maxsize=64)
def kind_weights(number: int, exponent: float) -> dict[str, float]:
    """Relative frequencies of the first ``number`` kinds: 1 / rank ** exponent (Zipf)."""
    return {name: rank**-exponent for rank, name in enumerate(islice(KINDS, number), start=1)}
