"""Which things a Chinese text names, whatever made it: data/eval/lexicon.yaml against free text.

The longest word wins (花瓶 is no 花), words that only look like things are passed over (马上), and each mention says
whether it is denied (没有狗), hedged (看起来像一只猫), and which colour and number it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.common.errors import InputError
from stages.evaluate.mentions import CLAUSE, VERDICT, any_of

LEXICON = Path("data/eval/lexicon.yaml")

Gender = Literal["male", "female"]


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


_NUMBERS = {"一": 1, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9, "十": 10}
_MEASURES = "只个位名条匹头辆艘架本朵棵株座把张片束盆杯瓶块根种件顶支幅台幢栋家枚道口扇盏颗粒尊匹"
_COUNT = re.compile(rf"([{''.join(_NUMBERS)}]|\d{{1,3}})[{_MEASURES}]")
_PAIR = re.compile("一[对双]")
# A single character is a word by itself only after one of these: 一条河, 在海, 的书, 看书; 热狗 and 开水 are no dog and
# no water. At the start of a clause, or after another mention, it is one as well.
_BEFORE_SINGLE = frozenset(
    _MEASURES
    + "群对双些排堆层丛缕团轮 的有是和与跟及或、在到见着了过看读吃喝骑开坐牵抱遛喂养拿撑穿戴上下里大小老新红白黑绿蓝黄"
    "两几多“”\"'「（( "
)
_HEDGE = re.compile("看起来|看上去|似乎|好像|可能|也许|或许|大概|疑似|像是|应该是|貌似|仿佛是")
# 像一座桥, 如同一面镜子, 宛如一幅画: a likeness is no claim; 看起来像 and 像是 are hedged claims.
_LIKENESS = re.compile(
    "(?<!看起来)(?<!看上去)(?<![好图画雕佛头肖影录摄偶塑])像(?!是|素)|如同|犹如|宛如|宛若|好似|恍如|仿佛(?!是)|好比"
)
_LIKENESS_AFTER = re.compile("一样|一般|似的|般|[形状]的")


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

    def related(self, one: str, other: str) -> bool:
        """Whether one of the two is the other: 熊猫 and 动物."""
        return one == other or one in self.ancestors[other] or other in self.ancestors[one]

    @cached_property
    def _colour(self) -> re.Pattern[str]:
        return re.compile(any_of(self._colour_of))

    @cached_property
    def _colour_before(self) -> re.Pattern[str]:
        return re.compile(
            rf"((?:{any_of(self._colour_of)})(?:[和与、]?(?:{any_of(self._colour_of)}))*)(?:相间)?的?[大小]?$"
        )

    @cached_property
    def _colour_after(self) -> re.Pattern[str]:
        colours = any_of(self._colour_of)
        return re.compile(
            rf"(?:的?(?:颜色|毛发|皮毛|毛色|毛|身体|全身))*[都全]?(?:主要)?[是呈为]((?:{colours})(?:[和与、]?(?:{colours}))*)(?:相间)?的?$"
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
        verdicts = [(match.start(), match["no"] is not None) for match in VERDICT.finditer(clause)]
        for number, (start, end, concept) in enumerate(words):
            before, after = clause[:start], clause[end:]
            since = words[number - 1][1] if number else 0  # a likeness is to the first thing after it
            if _LIKENESS.search(before, since) or _LIKENESS_AFTER.match(after):
                continue
            said = [denied for place, denied in verdicts if place < start]
            yield Thing(
                concept=concept,
                word=clause[start:end],
                start=offset + start,
                end=offset + end,
                negated=bool(said) and said[-1],
                hedged=_HEDGE.search(before) is not None,
                colours=self._colours(before, after),
                count=_count(before, words[:number]),
            )

    def _colours(self, before: str, after: str) -> tuple[str, ...]:
        stated = self._colour_before.search(before) or self._colour_after.match(after)
        if stated is None:
            return ()
        return tuple(dict.fromkeys(self._colour_of[match[0]] for match in self._colour.finditer(stated[1])))


def _count(before: str, words: Sequence[tuple[int, int, str | None]]) -> int | None:
    """The number stated of the word that ``before`` leads to; ``words`` stand in it.

    一位穿着红色裙子的女士 is one 女士: what stands between belongs to her where 的 comes after it.
    """
    numbers = [(m.end(), _NUMBERS.get(m[1]) or int(m[1])) for m in _COUNT.finditer(before)]
    numbers += [(m.end(), 2) for m in _PAIR.finditer(before)]
    if not numbers:
        return None
    end, number = max(numbers)
    if re.search("[、和与及或]", before[end:]):
        return None
    inner = [word for word in words if word[0] >= end]
    ends = [stop for _, stop, _ in inner]
    starts = [*(start for start, *_ in inner), len(before)][1:]
    return number if all("的" in before[a:b] for a, b in zip(ends, starts, strict=True)) else None


def load_lexicon(path: Path) -> Lexicon:
    """Raises InputError that names the concept and what is wrong with it."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from None
    return Lexicon(file, str(path))
