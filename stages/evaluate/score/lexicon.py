"""The things that free Chinese text names, by the words of data/eval/lexicon.yaml.

The longest word wins (花瓶 is not 花), and words that only look like things are skipped (马上). Each mention records
whether it is denied (没有狗) or hedged (看起来像一只猫), and the colours and the number stated of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from stages.common.core.errors import InputError
from stages.common.core.yaml_files import Strict, read_checked
from stages.evaluate.score.clauses import (
    BEFORE_SINGLE,
    HEDGE,
    LIKENESS,
    LIKENESS_AFTER,
    denied_words,
    stated_counts,
)
from stages.evaluate.score.mentions import CLAUSE, any_of

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


class _Concept(Strict):
    words: tuple[str, ...] = ()
    kinds_of: tuple[str, ...] = Field((), alias="is")
    gender: Gender | None = None


class _File(Strict):
    concepts: dict[str, dict[str, _Concept]]
    lookalikes: tuple[str, ...]
    colours: dict[str, tuple[str, ...]]
    pronouns: dict[str, Gender]


# Concepts with rules of their own: 一位 counts people, and a person's colour is that of the clothes.
PERSON, CLOTHES = "人", "衣服"


class Lexicon:
    """``ancestors``: for each concept, all more general concepts (动物 for 狗)."""

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
                    raise InputError(f"{where}: {word} is a word of {name} and of {other}; keep it in one of them")
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
                raise InputError(f"{where}: {name} is a kind of {parent}, which is not listed; add it or correct it")
            if parent == name:
                raise InputError(
                    f"{where}: {name} is a kind of itself, through {', '.join(found) or name}; remove one link"
                )
            if parent not in found:
                found[parent] = None
                ahead += self.entries[parent].kinds_of
        return frozenset(found)

    def gender(self, concept: str) -> Gender | None:
        """The gender that a concept implies, by itself (爷爷) or through a more general one; else None."""
        return next((g for name in (concept, *self.ancestors[concept]) if (g := self.entries[name].gender)), None)

    def pronoun_genders(self, text: str) -> list[Gender]:
        """The genders of a text's pronouns, in order, without 其他 and plurals."""
        return [self._pronouns[match[0]] for match in re.finditer(rf"(?<!其)(?:{any_of(self._pronouns)})(?!们)", text)]

    def is_a(self, concept: str, kind: str) -> bool:
        return concept == kind or kind in self.ancestors[concept]

    def related(self, one: str, other: str) -> bool:
        """Whether one of the two is more general than the other, or the same: 熊猫 and 动物."""
        return self.is_a(one, other) or self.is_a(other, one)

    @cached_property
    def _colour(self) -> re.Pattern[str]:
        return re.compile(any_of(self._colour_of))

    @cached_property
    def _colours_stated(self) -> str:
        colour = f"(?:{any_of(self._colour_of)})"
        return f"({colour}(?:[和与、]?{colour})*)(?:相间)?"

    @cached_property
    def _colour_before(self) -> re.Pattern[str]:
        """白色的猫, 白色小猫, 白色的老式汽车."""
        return re.compile(f"{self._colours_stated}(?:的[^和与、在有是的着]{{0,4}}|[大小])?$")

    @cached_property
    def _colour_after(self) -> re.Pattern[str]:
        parts = "颜色|毛发|皮毛|毛色|毛|身体|全身|车身|车架|外观"
        return re.compile(
            f"(?:的?(?:{parts}))*[都全]?(?:主要)?(?:是|为|呈现?出?){self._colours_stated}的?(?=$|[、和与并且而但])"
        )

    def colour_spans(self, text: str) -> list[tuple[int, int]]:
        """Characters (start, end) of words for colours, without those inside the name of a thing."""
        inside = {place for start, end, _ in self._words(text) for place in range(start, end)}
        return [match.span() for match in self._colour.finditer(text) if match.start() not in inside]

    def find(self, text: str) -> list[Thing]:
        """All mentions in order. A comparison (像一座桥) is not a mention."""
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
                if word in self._concept_of and (len(word) > 1 or after_word or clause[at - 1] in BEFORE_SINGLE):
                    yield at, end, self._concept_of[word]
                    at, after_word = end, self._concept_of[word] is not None
                    break
            else:
                at, after_word = at + 1, False

    def _in_clause(self, clause: str, offset: int) -> Iterator[Thing]:
        words = [word for word in self._words(clause) if word[2] is not None]
        denied = denied_words(clause, words)
        counts = stated_counts(clause, words, lambda concept: self.is_a(concept, PERSON))
        since = 0  # a comparison is to the first thing after it
        for number, (start, end, concept) in enumerate(words):
            if not LIKENESS.search(clause, since, start) and not LIKENESS_AFTER.match(clause, end):
                yield Thing(
                    concept=concept,
                    word=clause[start:end],
                    start=offset + start,
                    end=offset + end,
                    negated=denied[number],
                    hedged=HEDGE.search(clause, 0, start) is not None,
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


def load_lexicon(path: Path) -> Lexicon:
    """Raises InputError that names the concept and what is wrong with it."""
    return Lexicon(read_checked(path, _File), str(path))
