"""How clauses of free Chinese text state numbers, deny things, and hedge or compare."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

Word = tuple[int, int, str]  # characters start:end of a clause, and the concept that they name

_DIGITS = {"一": 1, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9}
_MEASURES = "只个位名条匹头辆艘架本朵棵株座把张片束盆杯瓶块根件顶支幅台幢栋家枚道口扇盏颗粒尊副间"
# 两只, 12 只, 两人; not 第一位, 每一位, 几十只, 两三只, 一个个
_COUNT = re.compile(
    rf"(?<![第每几数多十百千万\d])([{''.join(_DIGITS)}十]+|\d{{1,3}})\s?(?:([{_MEASURES}对双])(?!\2)|(?=人))"
)
_PERSON_MEASURES = "位名"
# One of these characters between 一位 or 一辆 and the first thing after it makes that thing part of a description:
# 一个穿着裙子的人, but 一条蜿蜒的小路
_DESCRIBING = re.compile("[穿戴披系着在拿握捧抱骑乘坐站躺趴停放牵背举看读吃喝撑拄有满插开挂跑跳追玩含带]")
# A single character is a word only after one of these (一条河, 在海, 的书, 看书, 远处山), at the start of a clause, or
# after another mention: 热狗 names no dog, and 开水 no body of water.
BEFORE_SINGLE = frozenset(
    _MEASURES + "群对双些排堆层丛缕团轮碗盘串桶篮壶堵 的有是和与跟及或、在到见着了过比何"
    "看读吃喝品骑乘划开坐牵抱遛喂养放拿捧持举撑打敲踢穿戴登爬赏种撒"
    "上下里处方大小高矮长短老旧古新石木铁砖红白黑绿蓝黄灰橘棕金银粉紫青两几多“”\"'「（( "
)
HEDGE = re.compile(
    "看起来|看上去|看样子|似乎|好像|可能|也许|或许|大概|疑似|像是|应该?是|应该?有|应当|貌似|仿佛是|推测|估计|想必"
)
# 像一座桥, 如同一面镜子, 宛如一幅画, 让人想起大海: the next thing is no claim; 看起来像 and 像是 are hedged claims.
LIKENESS = re.compile(
    "(?<!看起来)(?<!看上去)(?<![好图画雕佛头肖影录摄偶塑石人不])像(?!是|素)|就像是?|如同|犹如|宛如|宛若|好似|恍如|仿佛(?!是)|好比|堪比"
    "|联想到|想起|想到|想象"
)
LIKENESS_AFTER = re.compile("一样|一般|似的|般|[形状]的")
# The last of these before a thing decides: 没有猫但有狗 denies the cat alone, 没有狗、猫和鱼 all three.
_PRESENCE = re.compile(
    r"(?P<no>(?<![淹沉埋出覆隐])没(?![入过落顶])有?(?:能?(?:看[到见]|发现|找到))?"
    r"|(?:未能?|不能|无法|难以)(?:看[到清见]|发现|找到)|未(?:见|出现|包含|展示|显示)|看不[到清见]|不见(?!得)"
    r"|(?<!是)不是有?|不(?:再是|像是?|含有?|包含|包括|存在)|[并绝而]非是?|[并毫]无|无(?=[一任])|缺[少乏])"
    r"|有|是|但|却|看[到见]"
)
# 没有人的街道 and 没有人在街道上 do not deny the street.
_DENIAL_ENDS = re.compile("^的|在")
# 小狗没有出现, 猫和狗都不在画面里
_DENIED_AFTER = re.compile(
    "(?:的(?:身影|踪影|踪迹|影子))?[也都全并]*(?:(?:没有?|未|未曾|没能)(?:在.{0,8}?)?(?:出现|现身|露面|入镜)|不存在"
    "|不在(?:画|图|照|镜))"
)
_AND = re.compile("[、和与及跟或]|以及|还有")


def stated_counts(clause: str, words: Sequence[Word], is_person: Callable[[str], bool]) -> dict[int, int]:
    """The numbers that a clause states, by the index in ``words`` of the thing that each counts.

    一位 counts the next person, even if other words are between them. Other measures count the next thing, or the last
    of several without a gap (一个城市街道). If a description with a thing in it comes first (一辆装满鲜花的自行车),
    they count the thing after its 的. ``is_person``: whether a concept is a person.
    """
    counts: dict[int, int] = {}
    for match in _COUNT.finditer(clause):
        ahead = [number for number, (_, end, _) in enumerate(words) if end > match.end()]
        if match[2] and match[2] in _PERSON_MEASURES:
            ahead = [number for number in ahead if is_person(words[number][2])][:1]
        elif ahead and _DESCRIBING.search(clause, match.end(), words[ahead[0]][0]):
            ahead = [here for last, here in pairwise(ahead) if "的" in clause[words[last][1] : words[here][0]]][:1]
        elif ahead:
            joined = [last for last, here in pairwise(ahead) if words[last][1] != words[here][0]]
            ahead = [*joined, ahead[-1]][:1]
        for number in ahead:
            if (value := 2 if match[2] in ("对", "双") else _number(match[1])) is not None:
                counts.setdefault(number, value)
    return counts


def _number(written: str) -> int | None:
    """三, 十二, 20; None of 三四 and other estimates."""
    if written.isdecimal():
        return int(written)
    tens, ten, ones = written.rpartition("十")
    if len(tens) > 1 or len(ones) > 1:
        return None
    return (_DIGITS[tens] if tens else 1) * 10 * bool(ten) + (_DIGITS[ones] if ones else 0)


def denied_words(clause: str, words: Sequence[Word]) -> list[bool]:
    """For each word, whether the clause denies that the thing is there."""
    denied, last, answers = False, 0, list[bool]()
    for start, end, _ in words:
        if denied and answers and _DENIAL_ENDS.search(clause[last:start]):
            denied = False
        for match in _PRESENCE.finditer(clause, last, start):
            denied = match["no"] is not None
        answers.append(denied)
        last = end
    later = False
    for number in reversed(range(len(words))):
        end = words[number][1]
        joined = number + 1 < len(words) and _AND.fullmatch(clause, end, words[number + 1][0])
        later = bool(_DENIED_AFTER.match(clause, end) or (later and joined))
        answers[number] = answers[number] or later
    return answers
