"""Which things a Chinese text names, whatever made it: data/eval/lexicon.yaml against free text.

The longest word wins (花瓶 is no 花), words that only look like things are passed over (马上), and each mention says
whether it is denied (没有狗), hedged (看起来像一只猫), and which colour and number it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stages.common.core.errors import InputError
from stages.evaluate.score.mentions import CLAUSE, any_of

LEXICON = Path("data/eval/lexicon.yaml")

T = TypeVar("T")
Gender = Literal["male", "female"]
Word = tuple[int, int, str]  # characters start:end of a clause, and the concept that they name


@dataclass(frozen=True)
class Thing:
    """A mention; ``start`` and ``end`` are character offsets. ``colours`` is empty, ``count`` None where not stated."""

    concept: str
    word: str
    start: int
    end: int
    negated: bool
    hedged: bool
    colours: tuple[str, ...]
    count: int | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Concept(_Strict):
    words: tuple[str, ...] = ()
    kinds_of: tuple[str, ...] = Field((), alias="is")
    gender: Gender | None = None


class _File(_Strict):
    concepts: dict[str, dict[str, _Concept]]
    lookalikes: tuple[str, ...]
    colours: dict[str, tuple[str, ...]]
    pronouns: dict[str, Gender]


# What genders and counts of people are told by, and colours of what they wear.
PERSON, CLOTHES = "人", "衣服"

_DIGITS = {"一": 1, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9}
_MEASURES = "只个位名条匹头辆艘架本朵棵株座把张片束盆杯瓶块根件顶支幅台幢栋家枚道口扇盏颗粒尊副间"
# 两只, 12 只, 两人; not 第一位, 每一位, 几十只, 两三只, 一个个
_COUNT = re.compile(
    rf"(?<![第每几数多十百千万\d])([{''.join(_DIGITS)}十]+|\d{{1,3}})\s?(?:([{_MEASURES}对双])(?!\2)|(?=人))"
)
_PERSON_MEASURES = "位名"
# Of what is said between 一位 or 一辆 and the first thing after it, this makes that thing a part of the description:
# 一个穿着裙子的人, but 一条蜿蜒的小路
_DESCRIBING = re.compile("[穿戴披系着在拿握捧抱骑乘坐站躺趴停放牵背举看读吃喝撑拄有满插开挂跑跳追玩含带]")
# A single character is a word by itself only after one of these: 一条河, 在海, 的书, 看书; 热狗 and 开水 are no dog and
# no water. At the start of a clause, or after another mention, it is one as well.
_BEFORE_SINGLE = frozenset(
    _MEASURES + "群对双些排堆层丛缕团轮碗盘串桶篮壶堵 的有是和与跟及或、在到见着了过比何"
    "看读吃喝品骑乘划开坐牵抱遛喂养放拿捧持举撑打敲踢穿戴登爬赏种撒"
    "上下里大小高矮长短老旧古新石木铁砖红白黑绿蓝黄灰橘棕金银粉紫青两几多“”\"'「（( "
)
_HEDGE = re.compile(
    "看起来|看上去|看样子|似乎|好像|可能|也许|或许|大概|疑似|像是|应该?是|应该?有|应当|貌似|仿佛是|推测|估计|想必"
)
# 像一座桥, 如同一面镜子, 宛如一幅画, 让人想起大海: the next thing is no claim; 看起来像 and 像是 are hedged claims.
_LIKENESS = re.compile(
    "(?<!看起来)(?<!看上去)(?<![好图画雕佛头肖影录摄偶塑石人不])像(?!是|素)|就像是?|如同|犹如|宛如|宛若|好似|恍如|仿佛(?!是)|好比|堪比"
    "|联想到|想起|想到|想象"
)
_LIKENESS_AFTER = re.compile("一样|一般|似的|般|[形状]的")
# The last of these before a thing decides: 没有猫但有狗 denies the cat alone, 没有狗、猫和鱼 all three.
_VERDICT = re.compile(
    r"(?P<no>(?<![淹沉埋出覆隐])没(?![入过落顶])有?(?:能?(?:看[到见]|发现|找到))?"
    r"|(?:未能?|不能|无法|难以)(?:看[到清见]|发现|找到)|未(?:见|出现|包含|展示|显示)|看不[到清见]|不见(?!得)"
    r"|(?<!是)不是有?|不(?:再是|像是?|含有?|包含|包括|存在)|[并绝而]非是?|[并毫]无|无(?=[一任])|缺[少乏])"
    r"|有|是|但|却|看[到见]"
)
# 没有人的街道 and 没有人在街道上 say that there is a street.
_DENIAL_ENDS = re.compile("^的|在")
# 小狗没有出现, 猫和狗都不在画面里
_DENIED_AFTER = re.compile(
    "(?:的(?:身影|踪影|踪迹|影子))?[也都全并]*(?:(?:没有?|未|未曾|没能)(?:在.{0,8}?)?(?:出现|现身|露面|入镜)|不存在"
    "|不在(?:画|图|照|镜))"
)
_AND = re.compile("[、和与及跟或]|以及|还有")


class Lexicon:
    """``ancestors`` of a concept: all that it is besides itself."""

    def __init__(self, file: _File, where: str) -> None:
        self.entries: Mapping[str, _Concept] = {}
        for category in file.concepts.values():
            for name, entry in category.items():
                if name in self.entries:
                    raise InputError(f"{where}: {name} is listed twice; keep one")
                self.entries[name] = entry
        self._concept_of: dict[str, str | None] = dict.fromkeys(file.lookalikes)
        for name, entry in self.entries.items():
            for word in (name, *entry.words):
                if word in self._concept_of:
                    other = self._concept_of[word] or "the lookalikes"
                    raise InputError(f"{where}: {word} stands for {name} and for {other}; a word has one meaning here")
                self._concept_of[word] = name
        self._longest = max(map(len, self._concept_of))
        self.ancestors = {name: self._ancestors(name, where) for name in self.entries}
        self.colours = frozenset(file.colours)
        self._pronouns = file.pronouns
        self._colour_of = {word: colour for colour, words in file.colours.items() for word in words}

    def _ancestors(self, name: str, where: str) -> frozenset[str]:
        found: dict[str, None] = {}
        ahead = list(self.entries[name].kinds_of)
        while ahead:
            parent = ahead.pop()
            if parent not in self.entries:
                raise InputError(f"{where}: {name} is said to be {parent}, which is not listed; add it or correct it")
            if parent == name:
                raise InputError(
                    f"{where}: {name} is said to be itself, by way of {', '.join(found) or name}; cut that"
                )
            if parent not in found:
                found[parent] = None
                ahead += self.entries[parent].kinds_of
        return frozenset(found)

    def gender(self, concept: str) -> Gender | None:
        """What a word says of gender, 爷爷 by itself, others by what they are."""
        return next((g for name in (concept, *self.ancestors[concept]) if (g := self.entries[name].gender)), None)

    def pronoun_genders(self, text: str) -> list[Gender]:
        """What the pronouns of a text say, in order; 其他 and 他们 say nothing."""
        return [self._pronouns[match[0]] for match in re.finditer(rf"(?<!其)(?:{any_of(self._pronouns)})(?!们)", text)]

    def is_a(self, concept: str, kind: str) -> bool:
        return concept == kind or kind in self.ancestors[concept]

    def related(self, one: str, other: str) -> bool:
        """Whether one of the two is the other: 熊猫 and 动物."""
        return self.is_a(one, other) or self.is_a(other, one)

    @cached_property
    def _colour(self) -> re.Pattern[str]:
        return re.compile(any_of(self._colour_of))

    @cached_property
    def _colours_said(self) -> str:
        colour = f"(?:{any_of(self._colour_of)})"
        return f"({colour}(?:[和与、]?{colour})*)(?:相间)?"

    @cached_property
    def _colour_before(self) -> re.Pattern[str]:
        """白色的猫, 白色小猫, 白色的老式汽车."""
        return re.compile(f"{self._colours_said}(?:的[^和与、在有是的着]{{0,4}}|[大小])?$")

    @cached_property
    def _colour_after(self) -> re.Pattern[str]:
        parts = "颜色|毛发|皮毛|毛色|毛|身体|全身|车身|车架|外观"
        return re.compile(
            f"(?:的?(?:{parts}))*[都全]?(?:主要)?(?:是|为|呈现?出?){self._colours_said}的?(?=$|[、和与并且而但])"
        )

    def colour_spans(self, text: str) -> list[tuple[int, int]]:
        """Where words for colours stand, but for those within the name of a thing."""
        inside = {place for start, end, _ in self._words(text) for place in range(start, end)}
        return [match.span() for match in self._colour.finditer(text) if match.start() not in inside]

    def find(self, text: str) -> list[Thing]:
        """All mentions in order. A likeness (像一座桥) is none."""
        found = []
        for clause in CLAUSE.finditer(text):
            found += self._in_clause(clause.group(), clause.start())
        return found

    def _words(self, clause: str) -> Iterator[tuple[int, int, str | None]]:
        """(start, end, concept) of the longest words, from the left; a lookalike has no concept."""
        at, after_word = 0, True
        while at < len(clause):
            for end in range(min(len(clause), at + self._longest), at, -1):
                word = clause[at:end]
                if word in self._concept_of and (len(word) > 1 or after_word or clause[at - 1] in _BEFORE_SINGLE):
                    yield at, end, self._concept_of[word]
                    at, after_word = end, self._concept_of[word] is not None
                    break
            else:
                at, after_word = at + 1, False

    def _in_clause(self, clause: str, offset: int) -> Iterator[Thing]:
        words = [word for word in self._words(clause) if word[2] is not None]
        denied, counts = _denied(clause, words), self._counts(clause, words)
        since = 0  # a likeness is to the first thing after it
        for number, (start, end, concept) in enumerate(words):
            if not _LIKENESS.search(clause, since, start) and not _LIKENESS_AFTER.match(clause, end):
                yield Thing(
                    concept=concept,
                    word=clause[start:end],
                    start=offset + start,
                    end=offset + end,
                    negated=denied[number],
                    hedged=_HEDGE.search(clause, 0, start) is not None,
                    colours=self._colours(clause[since:start], clause[end:]),
                    count=counts.get(number),
                )
            since = end

    def _colours(self, before: str, after: str) -> tuple[str, ...]:
        """``before`` and ``after``: the clause around a word, from the end of the one before it."""
        stated = self._colour_before.search(before) or self._colour_after.match(after)
        if stated is None:
            return ()
        return tuple(dict.fromkeys(self._colour_of[match[0]] for match in self._colour.finditer(stated[1])))

    def _counts(self, clause: str, words: Sequence[Word]) -> dict[int, int]:
        """The numbers stated, by the places in ``words`` of what they count.

        一位 counts the next person, whatever stands between. Else it is the next thing, of 一个城市街道 the last; after
        a description that has a thing in it (一辆装满鲜花的自行车) it is the one that 的 leads to.
        """
        counts: dict[int, int] = {}
        for match in _COUNT.finditer(clause):
            ahead = [number for number, (_, end, _) in enumerate(words) if end > match.end()]
            if match[2] and match[2] in _PERSON_MEASURES:
                ahead = [number for number in ahead if self.is_a(words[number][2], PERSON)][:1]
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


def _denied(clause: str, words: Sequence[Word]) -> list[bool]:
    """Whether the clause says of each word that it is not there."""
    denied, last, answers = False, 0, list[bool]()
    for start, end, _ in words:
        if denied and answers and _DENIAL_ENDS.search(clause[last:start]):
            denied = False
        for verdict in _VERDICT.finditer(clause, last, start):
            denied = verdict["no"] is not None
        answers.append(denied)
        last = end
    later = False
    for number in reversed(range(len(words))):
        end = words[number][1]
        joined = number + 1 < len(words) and _AND.fullmatch(clause, end, words[number + 1][0])
        later = bool(_DENIED_AFTER.match(clause, end) or (later and joined))
        answers[number] = answers[number] or later
    return answers


class _OneKey(yaml.SafeLoader):
    """A key that stands twice is an error; YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is listed twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_checked(path: Path, shape: type[T]) -> T:
    """A YAML file as ``shape``. Raises InputError that names the place and what is wrong there."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _OneKey)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    try:
        return TypeAdapter(shape).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from None


def load_lexicon(path: Path) -> Lexicon:
    """Raises InputError that names the concept and what is wrong with it."""
    return Lexicon(read_checked(path, _File), str(path))
