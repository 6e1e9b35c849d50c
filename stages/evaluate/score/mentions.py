"""The objects that a text of the built-in world names, their stated colours, and whether they are denied."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stages.common.world.vocabulary import BACKGROUNDS, COLOUR_WORDS, FAR_WORDS, KINDS


@dataclass(frozen=True)
class Mention:
    """``start`` and ``end`` are character offsets into the text; ``colour`` is None where none is stated. ``far``: a
    word such as 远处 stands before it in its clause."""

    kind: str
    word: str
    start: int
    end: int
    colour: str | None
    negated: bool
    far: bool


_KIND_OF = {word: name for name, kind in KINDS.items() for word in kind.words}
_COLOUR_OF = {word: name for name, words in COLOUR_WORDS.items() for word in words}
# Everyday words that contain a kind's word and mean something else; _lookalikes finds those of the world itself.
_COMPOUNDS = {
    *("雪花", "浪花", "火花", "烟花", "花园", "花纹", "地球", "星球", "月球"),
    *("图书馆", "书架", "书桌", "书包", "书柜", "树叶", "树枝", "鱼缸", "鱼竿", "鸟巢"),
}


def _lookalikes() -> set[str]:
    """Phrases of the world that contain a kind's word and do not mean such an object.

    From clauses on parts, the word and the character after it: 花白 and 花瓣 are not 花, 树干 is not 树. From phrases
    about backgrounds, which never name an object, all of the phrase.
    """
    any_kind = re.compile(any_of(_KIND_OF))
    clauses = [part for kind in KINDS.values() for part in kind.parts]
    parts = {
        clause[match.start() : match.end() + 1]
        for clause in clauses
        for match in any_kind.finditer(clause)
        if match.end() < len(clause)
    }
    phrases = {phrase for place in BACKGROUNDS.values() for phrase in (*place.words, *place.details, *place.moods)}
    return parts | {phrase for phrase in phrases if any_kind.search(phrase)}


def any_of(words: Iterable[str]) -> str:
    """A pattern for any of ``words``, the longest first: 气球 is not 球.

    Words with the same first character are one alternative: twice as fast as each by itself.
    """
    rests: dict[str, list[str]] = {}
    for word in sorted(words, key=len, reverse=True):
        rests.setdefault(word[0], []).append(re.escape(word[1:]))
    return "|".join(f"{re.escape(first)}(?:{'|'.join(found)})" for first, found in rests.items())


_GUARDS = (_lookalikes() | _COMPOUNDS) - set(_KIND_OF)
# 花白 is a guard, yet in 花白色 the 白 belongs to the colour.
_OBJECT = re.compile(f"(?:{any_of(_GUARDS)})(?!色)|(?P<kind>{any_of(_KIND_OF)})")
CLAUSE = re.compile(r"[^，。；：！？…,.;:!?\r\n]+")
# The last of these before an object decides: 没有猫但有狗 denies the cat alone, 没有狗、猫和鱼 all three.
_PRESENCE = re.compile(
    r"(?P<no>(?<![淹沉埋出])没有?(?:能?(?:看[到见]|发现|找到))?|(?:未|不能|无法)(?:看[到见]|发现|找到)"
    r"|看不[到见]|不是有?|不存在|并无)|有|是|但|却|看[到见]"
)
_COLOUR = f"({any_of(_COLOUR_OF)})"
# 红色的小狗, 红色小狗, 红色的小汽车
_BEFORE = re.compile(f"{_COLOUR}的?[大小]?$")
# 小狗是红色的, 小狗的颜色是红色; nothing else may follow: 小狗是红色的气球, 小狗是红色的天空
_AFTER = re.compile(rf"(?:的?颜色)?(?:全都|[都全也])?[是为]{_COLOUR}的?(?=$|[、和与及而并且但还\s])")
_FAR = re.compile(any_of(FAR_WORDS))


def colour_spans(text: str) -> list[tuple[int, int]]:
    """Characters (start, end) of the words for colours."""
    return [match.span() for match in re.finditer(_COLOUR, text)]


def naming_spans(text: str, mention: Mention) -> list[tuple[int, int]]:
    """Characters (start, end) of the words that name the mention's kind: the noun, and its measure word before it, as
    in 一棵绿色的树.

    Where there is a measure word, the choice of a kind shows there: 棵 leaves little but trees.
    """
    colour = _BEFORE.search(text, 0, mention.start)
    end = mention.start - (len(colour[0]) if colour else 0)
    measure = KINDS[mention.kind].measure
    before = [(end - len(measure), end)] if text.endswith(measure, 0, end) else []
    return [*before, (mention.start, mention.end)]


def find_mentions(text: str) -> list[Mention]:
    """All mentions in order; of two words that overlap, the one that starts first, then the longer.

    Any text is allowed, however broken. A denial applies up to the end of its clause or the next 有, 是 or 但; one that
    follows its object (小狗没有出现) is not found.
    """
    return [mention for clause in CLAUSE.finditer(text) for mention in _in_clause(clause.group(), clause.start())]


def _in_clause(clause: str, offset: int) -> Iterator[Mention]:
    statements = [(match.start(), match["no"] is not None) for match in _PRESENCE.finditer(clause)]
    far = _FAR.search(clause)
    for match in _OBJECT.finditer(clause):
        word = match["kind"]
        if word is None:
            continue
        before = [denied for start, denied in statements if start < match.start()]
        yield Mention(
            kind=_KIND_OF[word],
            word=word,
            start=offset + match.start(),
            end=offset + match.end(),
            colour=_stated_colour(clause, match.start(), match.end()),
            negated=bool(before) and before[-1],
            far=far is not None and far.end() <= match.start(),
        )


def _stated_colour(clause: str, start: int, end: int) -> str | None:
    """The colour that the clause gives the word at start:end, before it or as a predicate after it."""
    stated = _BEFORE.search(clause[:start]) or _AFTER.match(clause, end)
    return _COLOUR_OF[stated[1]] if stated else None
