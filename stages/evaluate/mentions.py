"""Which objects a Chinese text names, in which colour, and whether it says that they are not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from stages.common.world import COLOUR_WORDS, KINDS


@dataclass(frozen=True)
class Mention:
    """``start`` and ``end`` are character offsets into the text; ``colour`` is None where none is stated."""

    kind: str
    word: str
    start: int
    end: int
    colour: str | None
    negated: bool


_KIND_OF = {word: name for name, kind in KINDS.items() for word in kind.words}
_COLOUR_OF = {word: name for name, words in COLOUR_WORDS.items() for word in words}


def _lookalikes() -> set[str]:
    """Words that begin like a kind but name a part or a quality: 花白 and 花瓣 are no 花, 树干 is no 树."""
    clauses = [part for kind in KINDS.values() for part in kind.parts]
    return {
        clause[match.start() : match.end() + 1]
        for clause in clauses
        for match in re.finditer("|".join(_KIND_OF), clause)
        if match.end() < len(clause)
    }


def _any_of(words: Iterator[str] | set[str] | dict[str, str]) -> str:
    """Longest first: 气球 is no 球."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_LOOKALIKES = _lookalikes()
_OBJECT = re.compile(_any_of(_LOOKALIKES | set(_KIND_OF)))
_CLAUSE = re.compile(r"[^，。；！？,;!?\n]+")
_NEGATION = re.compile(r"没有?|看不[到见]|不是|不存在|并无")
_COLOUR = f"(?:{_any_of(_COLOUR_OF)})"
# 红色的小狗, 红色小狗, 穿红色衣服的女士, 穿着红色的衣服的女士
_BEFORE = re.compile(f"({_COLOUR})的?(?:衣服的?)?$")
# 小狗是红色的, 小狗的颜色是红色, 女士的衣服是红色的, 女士穿着红色的衣服; but not 小狗是红色的气球
_AFTER = re.compile(rf"(?:的颜色|的衣服)?(?:[都全也]|全都)?(?:是|穿着?)({_COLOUR})(?!的?(?:{_any_of(_KIND_OF)}))")


def find_mentions(text: str) -> list[Mention]:
    """All mentions in order. Any text is allowed, however broken."""
    return [mention for clause in _CLAUSE.finditer(text) for mention in _in_clause(clause.group(), clause.start())]


def _in_clause(clause: str, offset: int) -> Iterator[Mention]:
    denied = _NEGATION.search(clause)
    for match in _OBJECT.finditer(clause):
        word = match.group()
        if word not in _KIND_OF:
            continue
        before = _BEFORE.search(clause[: match.start()])
        after = _AFTER.match(clause, match.end())
        stated = before or after
        yield Mention(
            kind=_KIND_OF[word],
            word=word,
            start=offset + match.start(),
            end=offset + match.end(),
            colour=_COLOUR_OF[stated.group(1)] if stated else None,
            negated=denied is not None and denied.start() < match.start(),
        )
