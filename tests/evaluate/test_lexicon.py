"""The lexicon on free Chinese text: sentences checked by hand, written before the finder was run on them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from stages.common.config.params import load_params
from stages.common.core.errors import InputError
from stages.common.world.vocabulary import COLOURS
from stages.evaluate.score.lexicon import load_lexicon
from stages.evaluate.score.mentions import find_mentions
from stages.prepare.scene import sample_scene
from stages.prepare.wording import Prior, texts_of

ROOT = Path(__file__).parents[2]
LEXICON = load_lexicon(ROOT / "data/eval/lexicon.yaml")

# What a sentence claims, in order of its words; ! is denied, ? is hedged.
SENTENCES = [
    # plain
    ("图片中有一只狗。", "狗"),
    ("一只小猫趴在沙发上", "猫 沙发"),
    ("一位老奶奶牵着一个小男孩过马路", "老奶奶 男孩 道路"),
    ("图片中展示了一个繁忙的城市街道，街道两旁是高楼大厦，车辆在道路上行驶。", "城市 街道 街道 高楼 车 道路"),
    ("一位穿着红色裙子的女子正在海边的沙滩上遛狗。", "裙子 女人 海边 沙滩 狗"),
    ("老人坐在公园的长椅上看书，旁边放着一杯咖啡。", "老人 公园 长椅 书 咖啡"),
    ("一名宇航员漂浮在太空中，背后是蓝色的地球。", "宇航员 太空 地球"),
    ("瀑布从悬崖上倾泻而下，水雾中出现了一道彩虹。", "瀑布 悬崖 水雾 彩虹"),
    ("一辆自行车停靠在墙边，车篮里装满了鲜花。", "自行车 墙 篮子 花"),
    ("舞台上，一位舞者身穿白色长裙，在灯光下翩翩起舞。", "舞台 舞者 裙子 灯 舞者"),
    ("熊猫在草地上吃竹子", "熊猫 草地 竹子"),
    ("几个孩子在操场上踢足球", "孩子 操场 足球"),
    ("桌子上摆着苹果、香蕉和一瓶牛奶。", "桌子 苹果 香蕉 牛奶"),
    ("夜晚的城市灯火辉煌，高速公路上车水马龙。", "夜晚 城市 灯 高速公路"),
    ("天空中飘着几朵白云，远处是连绵的山脉。", "天空 云 山"),
    ("消防员正在扑灭大火，旁边停着一辆消防车。", "消防员 火 消防车"),
    ("男人戴着眼镜和帽子，手里拿着一本书。", "男人 眼镜 帽子 书"),
    ("湖面上有两只白天鹅", "湖 天鹅"),
    ("她穿着牛仔裤和白色背心", "牛仔裤 背心"),
    ("这是一间温馨的卧室，里面有床、衣柜和台灯。", "房间 床 柜子 灯"),
    ("雪山脚下有一座小木屋", "山 房子"),
    ("列车驶过大桥", "火车 桥"),
    ("一群羊在草原上吃草", "羊 草原 草"),
    ("宇宙飞船的窗口外是浩瀚的银河", "飞船 窗户 银河"),
    ("老爷爷白发苍苍，拄着拐杖", "老爷爷 白发 拐杖"),
    ("街道上车流如织，车灯形成一条条光带", "街道 车 车灯"),
    ("有一个人骑着马", "人 马"),
    # the longest word wins
    ("桌上放着一个花瓶。", "桌子 花瓶"),
    ("公园里有一条长椅", "公园 长椅"),
    ("一只熊猫和一只北极熊", "熊猫 北极熊"),
    ("斑马在斑马线上", "斑马 斑马线"),
    ("他骑着摩托车去火车站。", "摩托车 车站"),
    ("面包车里有面包", "面包车 面包"),
    ("河马不是马", "河马 !马"),
    ("猫头鹰停在树枝上", "猫头鹰 树枝"),
    ("长颈鹿和鹿", "长颈鹿 鹿"),
    ("手机和电视机", "手机 电视"),
    ("太阳镜很酷", "太阳镜"),
    ("热气球飞上蓝天", "热气球 天空"),
    ("霓虹灯闪烁", "霓虹灯"),
    ("向日葵朝着太阳", "向日葵 太阳"),
    ("笔记本电脑放在书桌上", "笔记本电脑 书桌"),
    ("海豚跃出海面", "海豚 大海"),
    ("冰淇淋店", "冰淇淋"),
    # words that only look like things
    ("我们马上出发", ""),
    ("这次旅行花费不少", ""),
    ("街上车水马龙", "街道"),
    ("这幅画面让人感到平静", ""),
    ("图像的水平很高", ""),
    ("山水之间的意境", ""),
    ("人工智能和人生", ""),
    ("人山人海，热闹非凡", "人"),
    ("画面中央是一只猫", "猫"),
    ("队伍鱼贯而入，对手虎视眈眈", ""),
    ("火热的气氛", ""),
    ("全球最大的球赛", ""),
    ("背景包括各种元素", ""),
    ("笔直的线路", ""),
    ("他马虎地写着书法", ""),
    ("天花板很高", "天花板"),
    ("上海的水晶很贵", ""),
    ("云集了各地的明星", ""),
    ("热狗和狗", "热狗 狗"),
    ("专门的部门", ""),
    ("海报上写着书面语", "海报"),
    ("树立了榜样", ""),
    ("熊熊燃烧的火焰", "火"),
    ("雪白的墙壁", "墙"),
    ("鸟瞰整个城市", "城市"),
    ("鼓励大家一起鼓掌", ""),
    # denied
    ("图中没有狗", "!狗"),
    ("没有狗、猫和鱼。", "!狗 !猫 !鱼"),
    ("没有猫，但有一只狗", "!猫 狗"),
    ("没有猫但有狗", "!猫 狗"),
    ("这不是猫，是狗。", "!猫 狗"),
    ("这不是猫而是一只兔子", "!猫 兔子"),
    ("街道上看不到汽车", "街道 !汽车"),
    ("并没有看到任何行人", "!人"),
    ("天空中不存在飞机", "天空 !飞机"),
    ("画面里未发现自行车。", "!自行车"),
    # hedged
    ("看起来像是一只猫", "?猫"),
    ("看起来像一只狗", "?狗"),
    ("远处似乎有一座塔", "?塔"),
    ("可能是一位老师", "?老师"),
    ("好像有人在跑步，旁边是一棵树", "?人 树"),
    ("这应该是一辆出租车。", "?出租车"),
    # likenesses claim nothing
    ("白云像棉花一样", "云"),
    ("瀑布如同一面镜子", "瀑布"),
    ("彩虹宛如一座桥横跨在河上", "彩虹 河"),
    ("她像蝴蝶一样在舞台上跳舞", "舞台 舞者"),
    ("湖水像镜子般平静", "湖"),
    ("雕像前站着一个女孩", "雕像 女孩"),
    ("一块心形的石头和一片星形的叶子", "岩石 树叶"),
    # other words for the same thing, complete captions
    ("夜幕降临，城市的霓虹灯闪烁，车流如织。", "夜空 城市 霓虹灯 车"),
    ("水平线上的太阳正缓缓升起，阳光洒在海面上。", "太阳 阳光 大海"),
    ("一架直升机在雪山上空盘旋，下方是正在滑雪的人们，缆车缓缓上行。", "直升机 山 人 缆车"),
    ("厨房里，一位厨师正在案板上切蔬菜，冰箱门上贴着便利贴。", "厨房 厨师 砧板 蔬菜 冰箱"),
    ("一名宇航员身穿白色宇航服，正从飞船的舷窗向外眺望地球。", "宇航员 宇航服 飞船 窗户 地球"),
    ("她手里拿着手机，背着一个书包，头戴一顶草帽。", "手机 背包 帽子"),
    ("一群人围坐在篝火旁，仿佛在讲故事。", "人 火"),
    ("一个穿着太空服的人站在宇宙飞船的内部，透过窗户可以看到行星和恒星。", "宇航服 人 飞船 窗户 行星 星星"),
    ("雨中的街道湿漉漉的，路面上的积水倒映着商店的灯光。", "雨 街道 道路 水 商店 灯"),
    ("两人正在跳舞", "人 舞者"),
    ("街角的咖啡馆门口摆着几张桌椅", "街道 咖啡馆 门 家具"),
    ("一个人头戴草帽，一棵树立在路边", "人 帽子 树 道路"),
    ("在大海上海鸥盘旋", "大海 海鸥"),
    ("张牙舞爪的石狮子前有几朵红花", "雕像 花"),
    ("在图片的左下角，一只松鼠正抱着坚果坐在树桩上。", "松鼠 树"),
    ("海面风平浪静，几只海鸥掠过水面，灯塔矗立在礁石上。", "大海 海鸥 水 灯塔 岩石"),
    ("河岸两边开满了油菜花", "岸 花"),
    ("一只毛茸茸的小鸡站在鸡窝旁边。", "鸡"),
    ("渔民站在船头撒网，夕阳映红了江面。", "渔民 船 网 日落 河"),
    ("餐桌上摆着热气腾腾的饺子和一碗汤。", "桌子 饺子 汤"),
    ("月光洒在静谧的湖面上，像铺了一层银霜。", "月亮 湖"),
    ("石阶蜿蜒而上，通向山顶的寺庙。", "楼梯 山 寺庙"),
    ("图中的主角是一只穿着毛衣的小狗，而不是小猫。", "毛衣 狗 !猫"),
    ("草原上，牧民骑着骏马赶着羊群。", "草原 牧民 马 羊"),
    ("一位女舞者与一位男舞者", "女舞者 男舞者"),
    ("红色的尾灯汇成一条长河", "车灯"),
    ("一群大雁排成人字形飞过天空。", "鸟 天空"),
    ("母亲抱着婴儿坐在摇椅上。", "女人 婴儿 摇椅"),
    ("少女撑着油纸伞走在青石板路上。", "女孩 雨伞 小路"),
    ("她穿上衣服，放着装满水果的篮子", "衣服 水果 篮子"),
    ("一条蛇盘踞在岩石上，吐着信子。", "蛇 岩石"),
    ("路中间画着白线，气球鼓鼓的", "道路 气球"),
    ("鸟比狗更靠右", "鸟 狗"),
    # a word within another, cut where it must be
    ("石木马旁是一辆婴儿车和一张双人床", "旋转木马 婴儿车 床"),
    ("打火机、过山车和穿山甲", "打火机 过山车 穿山甲"),
    ("球门前站着守门员", "球门 运动员"),
    ("人与自然和谐相处，让每个人都感到温暖", ""),
    ("车辆在红绿灯前排成长龙", "车 红绿灯"),
    ("照片里所有人都在欢笑", ""),
    ("他的个人风格深受人们喜爱", "人"),
    # denied, and where a denial ends
    ("小狗没有出现在画面里。", "!狗"),
    ("猫和狗都不在画面里", "!猫 !狗"),
    ("这幅画面并未出现任何动物。", "!动物"),
    ("一条没有车辆的街道", "!车 街道"),
    ("没有行人在街道上行走", "!人 街道"),
    ("没有看到在草地上的狗", "!草地 !狗"),
    ("街上既没有汽车也没有自行车，只有一辆公交车。", "街道 !汽车 !自行车 公交车"),
    ("画面里除了一只猫之外没有其他动物。", "猫 !动物"),
    ("图像中无法看到猫，但能看到一只鸟停在树枝上。", "!猫 鸟 树枝"),
    ("天上没有一丝云彩，阳光格外刺眼。", "!云 阳光"),
    ("图片里的男子并不是警察，而是一名消防员。", "男人 !警察 消防员"),
    ("他并没有戴眼镜，也没有戴帽子。", "!眼镜 !帽子"),
    ("湖上停着一艘小船，没有看到任何人。", "湖 船 !人"),
    ("这里缺少家具，空无一人", "!家具"),
    ("这并非一只狼，而是一只哈士奇", "!狼 哈士奇"),
    ("是一只狗而不是一只狐狸", "狗 !狐狸"),
    ("不仅有狗还有猫", "狗 猫"),
    ("海水淹没了小船", "大海 船"),
    ("草没过了膝盖，远处有羊", "草 羊"),
    # hedged, against likenesses
    ("背景可能是一片森林，也许还有一条小河。", "?森林 ?河"),
    ("看上去像一个女人", "?女人"),
    ("看起来就像一幅画", ""),
    ("水面就像是一面镜子", "水"),
    ("远处的彩虹像一座桥横跨在瀑布上方。", "彩虹 瀑布"),
    ("她的裙摆宛如一朵盛开的花。", "裙子"),
    ("让人联想到浩瀚的大海", ""),
    ("远处的山像一条巨龙", "山"),
    ("桥的形状像一道彩虹", "桥"),
    ("它看起来很可爱，旁边有一只猫", "猫"),
    ("也不像是公园", "!公园"),
]


def claims(text: str) -> str:
    return " ".join(("!" if t.negated else "?" if t.hedged else "") + t.concept for t in LEXICON.find(text))


@pytest.mark.parametrize(("text", "expected"), SENTENCES, ids=[text for text, _ in SENTENCES])
def test_what_a_sentence_claims(text: str, expected: str) -> None:
    assert claims(text) == expected


def test_there_are_enough_sentences_and_concepts() -> None:
    assert len({text for text, _ in SENTENCES}) >= 120
    assert len(LEXICON.entries) >= 600


def test_it_finds_the_mentions_of_the_built_in_world_s_texts() -> None:
    """Every mention that mentions.py finds is found, with the same denial, and the same colour where both find one."""
    data = load_params(ROOT / "tests/params.yaml").data
    colours = dict(zip(COLOURS, "红橙黄绿蓝紫白黑棕灰粉", strict=True))
    for index in range(60):
        for text in texts_of(
            sample_scene(data, 1, "test", index),
            Prior.of(data, 0.0),
            random.Random(index),
        ):
            answer = "".join(text.answer)
            found = {thing.end: thing for thing in LEXICON.find(answer)}  # 大气球 is a longer word there
            for mention in find_mentions(answer):
                thing = found[mention.end]
                assert thing.negated == mention.negated, answer
                assert mention.colour is None or thing.colours in ((), (colours[mention.colour],)), answer


def test_offsets_are_those_of_the_words() -> None:
    text = "远处有山。\n一只大熊猫，两棵大树和  一把雨伞"
    assert [text[t.start : t.end] for t in LEXICON.find(text)] == ["山", "大熊猫", "大树", "雨伞"]
    assert [t.word for t in LEXICON.find(text)] == ["山", "大熊猫", "大树", "雨伞"]


@pytest.mark.parametrize(
    ("text", "concept", "colours", "count"),
    [
        ("一只黑白相间的熊猫", "熊猫", ("黑", "白"), 1),
        ("两辆红色的汽车", "汽车", ("红",), 2),
        ("汽车是红色的。", "汽车", ("红",), None),
        ("一位穿着红色裙子的女士", "女人", (), 1),
        ("一位穿着红色裙子的女士", "裙子", ("红",), None),
        ("12只鸟", "鸟", (), 12),
        ("一对情侣", "情侣", (), 2),
        ("一群鸟", "鸟", (), None),
        ("一只狗和猫", "猫", (), None),
        ("熊猫的毛发是黑色和白色的", "熊猫", ("黑", "白"), None),
        ("棕色小狗", "狗", ("棕",), None),
        ("一位白发苍苍的老人", "老人", (), 1),
        ("一个人骑着马", "马", (), None),
        ("一位女子正在海边的沙滩上", "沙滩", (), None),
        ("三匹马", "马", (), 3),
        ("十二只白鸽", "鸽子", (), 12),
        ("两三个孩子", "孩子", (), None),
        ("几十个游客", "人", (), None),
        ("第一位选手", "运动员", (), None),
        ("两人在跳舞", "人", (), 2),
        ("一个繁忙的城市街道", "城市", (), None),
        ("一个繁忙的城市街道", "街道", (), 1),
        ("一道彩虹横跨在雄伟的瀑布上", "瀑布", (), None),
        ("一位白发苍苍的老人", "老人", (), 1),
        ("一位穿着白色上衣和蓝色牛仔裤的女子", "女人", (), 1),
        ("一位穿着一条红裙子的女子", "女人", (), 1),
        ("一辆装满鲜花的绿色自行车", "自行车", ("绿",), 1),
        ("一位女人的狗", "狗", (), None),
        ("绿色的老式自行车", "自行车", ("绿",), None),
        ("自行车的车身是绿色的", "自行车", ("绿",), None),
        ("狗呈现出棕色", "狗", ("棕",), None),
        ("红色的狗和猫", "猫", (), None),
    ],
)
def test_colour_and_count(text: str, concept: str, colours: tuple[str, ...], count: int | None) -> None:
    (thing,) = [t for t in LEXICON.find(text) if t.concept == concept]
    assert (thing.colours, thing.count) == (colours, count)


def test_general_and_special_concepts() -> None:
    assert {"熊", "动物"} <= LEXICON.ancestors["熊猫"]
    assert LEXICON.ancestors["长椅"] == {"椅子", "家具"}
    assert LEXICON.related("动物", "熊猫") and not LEXICON.related("熊猫", "北极熊")
    assert LEXICON.gender("老奶奶") == "female" and LEXICON.gender("新郎") == "male" and LEXICON.gender("老人") is None
    assert LEXICON.pronoun_genders("其他人都走了，她还在，他们说他来") == ["female", "male"]


def test_every_word_is_found_by_itself() -> None:
    """Or a longer word, a lookalike or a colour would hide it for good."""
    for name, entry in LEXICON.entries.items():
        for word in (name, *entry.words):
            assert [t.concept for t in LEXICON.find(word)] == [name], word


def test_colours_outside_of_names() -> None:
    text = "白云下的白马是白色的"
    assert [text[a:b] for a, b in LEXICON.colour_spans(text)] == ["白色"]


@pytest.mark.parametrize(
    ("concepts", "message"),
    [
        ({"狗": {}, "猫": {"words": ["狗"]}}, "狗 is a word of 猫 and of 狗"),
        ({"狗": {"words": ["马上"]}}, "马上 is a word of 狗 and of the lookalikes"),
        ({"狗": {"is": ["动物"]}}, "狗 is a kind of 动物, which is not listed"),
        ({"狗": {"is": ["猫"]}, "猫": {"is": ["狗"]}}, "狗 is a kind of itself, through 猫"),
        ({"狗": {"si": ["猫"]}}, "concepts.x.狗.si: Extra inputs"),
        ({"狗": {"gender": "dog"}}, "concepts.x.狗.gender"),
    ],
)
def test_an_error_in_the_lexicon_is_reported(tmp_path: Path, concepts: dict, message: str) -> None:
    path = tmp_path / "lexicon.yaml"
    raw = {"concepts": {"x": concepts}, "lookalikes": ["马上"], "colours": {"红": ["红"]}, "pronouns": {"她": "female"}}
    path.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_lexicon(path)


def test_a_lexicon_that_is_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        load_lexicon(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_text("concepts:\n  x:\n    狗: {}\n    狗: {}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"狗 is listed twice .*line 4"):
        load_lexicon(tmp_path / "x.yaml")
    with pytest.raises(InputError, match=r"missing\.yaml cannot be read"):
        load_lexicon(tmp_path / "missing.yaml")
