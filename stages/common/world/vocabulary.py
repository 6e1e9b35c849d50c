"""The built-in world's vocabulary: what a picture can show (kinds, colours, backgrounds), and the Chinese words for it.

Texts are written (``stages/prepare``) and scored (``stages/evaluate/score``) with the same vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layer = Literal["sky", "ground"]
Parent = Literal["animal", "person", "vehicle", "object", "building", "plant", "phenomenon"]


@dataclass(frozen=True)
class Kind:
    """One kind of object. ``words[0]`` is the most common name, the others are synonyms.

    ``parent`` is the class of things that it belongs to: a cat that is called a dog is misnamed, because both are
    animals; a dog where only a house is left unnamed is hallucinated.
    """

    words: tuple[str, ...]
    measure: str  # measure word: 只
    parent: Parent
    layer: Layer
    homes: tuple[str, ...]  # backgrounds on which this kind is more likely
    parts: tuple[str, ...]  # clauses that are true of every drawing of this kind
    clothed: bool = False  # the colour is that of the clothes: 穿红色衣服的老人
    support: bool = False  # another object may stand on it
    shelter: bool = False  # another object may be under it
    frequency: float = 1.0  # relative frequency, to be multiplied by data.home_weight where the background is in homes


KINDS: dict[str, Kind] = {
    "dog": Kind(
        ("小狗", "狗"),
        "只",
        "animal",
        "ground",
        ("grassland", "seaside"),
        ("长着一对下垂的耳朵", "尾巴翘得高高的"),
        frequency=2.0,
    ),
    "cat": Kind(("小猫", "猫"), "只", "animal", "ground", ("room", "street"), ("长着一对尖尖的耳朵", "胡须又细又长")),
    "panda": Kind(
        ("熊猫", "大熊猫"), "只", "animal", "ground", ("grassland", "valley"), ("眼睛周围有一圈眼斑", "身体圆滚滚的")
    ),
    "rabbit": Kind(("兔子", "小兔"), "只", "animal", "ground", ("grassland", "snow"), ("竖着两只长耳朵", "尾巴短短的")),
    "bird": Kind(
        ("小鸟", "鸟"), "只", "animal", "sky", ("seaside", "valley"), ("张开了翅膀", "嘴巴尖尖的"), frequency=2.0
    ),
    "fish": Kind(("鱼", "小鱼"), "条", "animal", "ground", ("seaside", "valley"), ("尾巴像一把扇子", "眼睛圆圆的")),
    "butterfly": Kind(
        ("蝴蝶", "彩蝶"), "只", "animal", "sky", ("grassland", "valley"), ("有两对翅膀", "头上有一对触角")
    ),
    "woman": Kind(
        ("女士", "女子"),
        "位",
        "person",
        "ground",
        ("seaside", "street"),
        ("留着长头发", "穿着裙子"),
        clothed=True,
        frequency=2.0,
    ),
    "elderly": Kind(
        ("老人", "老爷爷"), "位", "person", "ground", ("room", "street"), ("头发花白", "手里拄着拐杖"), clothed=True
    ),
    "dancer": Kind(
        ("舞者", "舞蹈演员"),
        "位",
        "person",
        "ground",
        ("stage", "room"),
        ("抬起了一条腿", "双臂高高举起"),
        clothed=True,
    ),
    "astronaut": Kind(
        ("宇航员", "航天员"),
        "名",
        "person",
        "ground",
        ("space", "night"),
        ("戴着圆圆的头盔", "背着生命保障装置"),
        clothed=True,
    ),
    "car": Kind(
        ("汽车", "轿车"),
        "辆",
        "vehicle",
        "ground",
        ("street", "seaside"),
        ("有两个圆圆的轮子", "车窗亮亮的"),
        support=True,
        frequency=2.0,
    ),
    "bus": Kind(
        ("公交车", "巴士"), "辆", "vehicle", "ground", ("street", "night"), ("有一排车窗", "车身又长又高"), support=True
    ),
    "bicycle": Kind(
        ("自行车", "单车"), "辆", "vehicle", "ground", ("street", "grassland"), ("有两个大轮子", "车把弯弯的")
    ),
    "boat": Kind(
        ("帆船", "小船"), "艘", "vehicle", "ground", ("seaside", "valley"), ("挂着三角形的帆", "船底是弧形的")
    ),
    "plane": Kind(("飞机", "客机"), "架", "vehicle", "sky", ("space", "night"), ("伸着两只机翼", "机身细长")),
    "rocket": Kind(("火箭", "运载火箭"), "枚", "vehicle", "sky", ("space", "night"), ("头部尖尖的", "尾部喷着火焰")),
    "chair": Kind(
        ("椅子", "座椅"), "把", "object", "ground", ("room", "stage"), ("靠背很直", "有四条腿"), support=True
    ),
    "book": Kind(
        ("图书", "书"), "本", "object", "ground", ("room", "stage"), ("正翻开着", "书页是浅色的"), support=True
    ),
    "umbrella": Kind(
        ("雨伞", "伞"), "把", "object", "ground", ("street", "seaside"), ("伞面撑开了", "伞柄弯弯的"), shelter=True
    ),
    "ball": Kind(("皮球", "球"), "个", "object", "ground", ("grassland", "snow"), ("圆圆的", "表面有一道道条纹")),
    "balloon": Kind(
        ("气球", "大气球"), "个", "object", "sky", ("stage", "snow"), ("下面系着一根细线", "鼓鼓的"), shelter=True
    ),
    "house": Kind(
        ("房子", "小屋"),
        "座",
        "building",
        "ground",
        ("snow", "valley"),
        ("屋顶是三角形的", "有一扇门和一扇窗"),
        support=True,
    ),
    "tree": Kind(
        ("大树", "树"),
        "棵",
        "plant",
        "ground",
        ("snow", "night"),
        ("树冠很茂密", "树干是棕褐色的"),
        shelter=True,
        frequency=2.0,
    ),
    "flower": Kind(
        ("鲜花", "花"), "朵", "plant", "ground", ("grassland", "room"), ("有五片花瓣", "茎上长着叶子"), frequency=2.0
    ),
    "rainbow": Kind(
        ("彩虹", "虹"), "道", "phenomenon", "sky", ("valley", "space"), ("弯成一座拱桥的样子", "有好几层弧线")
    ),
}

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
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("红色",),
    "orange": ("橙色", "橘色"),
    "yellow": ("黄色",),
    "green": ("绿色",),
    "blue": ("蓝色",),
    "purple": ("紫色",),
    "white": ("白色",),
    "black": ("黑色",),
}


@dataclass(frozen=True)
class Background:
    """The setting of a scene. ``words[0]`` is the most common name, the others are synonyms."""

    words: tuple[str, ...]  # 海边: used between 在 and 有
    details: tuple[str, ...]  # clauses that are true of every drawing of this background
    moods: tuple[str, ...]


BACKGROUNDS: dict[str, Background] = {
    "seaside": Background(
        ("海边", "沙滩上"), ("远处是蓝蓝的大海", "近处是金色的沙子", "海浪轻轻拍打着岸边"), ("悠闲", "惬意")
    ),
    "street": Background(
        ("街道上", "马路边"), ("路面是灰色的", "后面立着一排高楼", "路中间画着白线"), ("热闹", "繁忙")
    ),
    "grassland": Background(
        ("草地上", "草原上"), ("地面长满了青草", "天空十分晴朗", "远处的小丘连绵起伏"), ("清新", "自在")
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
COUNT_WORDS: dict[int, str] = {1: "一", 2: "两", 3: "三"}
RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "on": ("上面", "上边"),
    "under": ("下面", "底下"),
    "beside": ("旁边", "一旁"),
}
