"""What a Chinese text states about the objects that it names: their number, place and relations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from stages.common.world.scene import Group, Scene
from stages.common.world.vocabulary import COLOUR_WORDS, KINDS, POSITION_WORDS, RELATION_WORDS
from stages.evaluate.score.mentions import CLAUSE, Mention, any_of

Aspect = Literal["count", "position", "relation"]
ASPECTS: tuple[Aspect, ...] = ("count", "position", "relation")

_NUMBERS = {"一": 1, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9, "十": 10}
_MEASURES = any_of({*(kind.measure for kind in KINDS.values()), *"头匹台幢栋株束串条根"})
_COLOUR = any_of(word for words in COLOUR_WORDS.values() for word in words)
_COUNT = re.compile(rf"([{''.join(_NUMBERS)}]|\d+)(?:{_MEASURES})(?:{_COLOUR})?的?[大小]?$")
_CELL_OF = {word: cell for cell, words in POSITION_WORDS.items() for word in words}
_PLACE = any_of(_CELL_OF)
_PLACE_BEFORE = re.compile(rf"({_PLACE})(?:的位置)?(?:还|则|也)?(?:有|是|可以?看[到见]|能看[到见]|站着|坐着|停着)")
_PLACE_AFTER = re.compile(rf"(?:位于|处在|就?在)(?:画面|图中|图片|图)?的?({_PLACE})")
_RELATION_OF = {word: name for name, words in RELATION_WORDS.items() for word in words}
_RELATION = any_of(_RELATION_OF)
_IN_RELATION = re.compile("[就站坐停放立]?在$")
_RELATION_AFTER = re.compile(rf"的?({_RELATION})(?P<then>还?(?:有|是))?")
_FURTHER = re.compile("更靠([左右])")
_BETWEEN = re.compile("的?(?:中间|之间)(?:还|则|也)?(?:有|是)")
_INVERSE = {"on": "under", "under": "on", "beside": "beside"}


class Claim(NamedTuple):
    """``kinds``: the objects that it is about. It is judged only where all of them are in the picture."""

    aspect: Aspect
    kinds: tuple[str, ...]
    stated: int | tuple[int, int] | str  # a number; a row and column of the grid; a relation


def find_claims(text: str, mentions: Sequence[Mention]) -> list[Claim]:
    """Claims about the ``mentions`` of a text. Clauses in other words than those of the built-in world give none."""
    claims = []
    for clause in CLAUSE.finditer(text):
        inside = [m for m in mentions if clause.start() <= m.start < clause.end()]
        claims += _in_clause(text, clause.start(), clause.end(), inside)
    return claims


def _in_clause(text: str, start: int, end: int, mentions: Sequence[Mention]) -> Iterator[Claim]:
    for mention in mentions:
        if number := _COUNT.search(text[start : mention.start]):
            yield Claim("count", (mention.kind,), _NUMBERS.get(number[1]) or int(number[1]))
    if not mentions:
        return
    first = mentions[0]
    if place := _PLACE_BEFORE.search(text[start : first.start]):
        # 左侧有一只狗和一只猫 gives the place of both
        for mention in mentions:
            yield Claim("position", (mention.kind,), _CELL_OF[place[1]])
    elif len(mentions) == 1 and (place := _PLACE_AFTER.match(text[first.end : end])):
        yield Claim("position", (first.kind,), _CELL_OF[place[1]])
    if len(mentions) == 2:
        yield from _relation(text, *mentions, end)
    elif len(mentions) == 3:
        yield from _between(text, *mentions)


def _relation(text: str, one: Mention, two: Mention, end: int) -> Iterator[Claim]:
    """一在二的上面, 一的上面是二, 一比二更靠左."""
    between, after = text[one.end : two.start], text[two.end : end]
    if one.kind == two.kind:
        return
    behind = _RELATION_AFTER.match(after)
    if behind and not behind["then"] and _IN_RELATION.match(between):
        yield Claim("relation", (one.kind, two.kind), _RELATION_OF[behind[1]])
    elif (inner := _RELATION_AFTER.match(between)) and inner["then"]:
        yield Claim("relation", (two.kind, one.kind), _RELATION_OF[inner[1]])
    elif between == "比" and (side := _FURTHER.match(after)):
        yield Claim("relation", (one.kind, two.kind), "left" if side[1] == "左" else "right")


def _between(text: str, one: Mention, two: Mention, three: Mention) -> Iterator[Claim]:
    """一和二之间有三."""
    inner = text[two.end : three.start]
    if text[one.end : two.start] in ("和", "与") and _BETWEEN.match(inner):
        yield Claim("relation", (three.kind, one.kind, two.kind), "between")


def claim_right(claim: Claim, scene: Scene) -> bool | None:
    """Whether a claim is true of the scene; None if it is about an object that is not in the picture."""
    places = {group.kind: index for index, group in enumerate(scene.groups)}
    if any(kind not in places for kind in claim.kinds):
        return None
    groups = [scene.groups[places[kind]] for kind in claim.kinds]
    if claim.aspect == "count":
        return claim.stated == groups[0].count
    if claim.aspect == "position":
        return claim.stated == (groups[0].row, groups[0].column)
    if claim.stated == "between":
        inner, *outer = claim.kinds
        return any((found.kind, {a.kind, b.kind}) == (inner, set(outer)) for found, a, b in scene.between)
    return _related(claim.stated, groups[0], groups[1], scene)


def _related(relation: str, one: Group, two: Group, scene: Scene) -> bool:
    if relation in ("left", "right"):
        return one.column < two.column if relation == "left" else one.column > two.column
    place = {group.kind: index for index, group in enumerate(scene.groups)}
    forwards = (place[one.kind], relation, place[two.kind])
    backwards = (place[two.kind], _INVERSE[relation], place[one.kind])
    return forwards in scene.relations or backwards in scene.relations
