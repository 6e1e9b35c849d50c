"""Chinese texts for a scene, written from its ground truth.

Captions name what is near. A description adds detail sentence by sentence, from near to far and from coarse to fine:
near things with their places, numbers and colours, then where far things are, their numbers, their colours and what
they are between, and then what follows from the sentences before: relations, surroundings, parts, mood, comparisons
and a summary. Any number of leading sentences is a complete text. A far-first description begins with the far things.

Every sentence has a list of the claims that it makes, such as ``object:dog``, ``colour:dog=red``, ``count:dog=2``,
``position:dog=1,0``, ``relation:dog=on,chair``, ``between:bird=dog,tree`` or ``unsupported:cat``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations
from typing import Literal, NamedTuple

from stages.common.config.data import DataParams
from stages.common.world.scene import Group, Scene
from stages.common.world.vocabulary import (
    BACKGROUNDS,
    COLOUR_WORDS,
    COUNT_WORDS,
    FAR_WORDS,
    KINDS,
    POSITION_WORDS,
    RELATION_WORDS,
)
from stages.prepare.kind_pool import kinds_at_home

Task = Literal[
    "caption", "description", "far_first", "what", "count", "colour", "where", "random", "popular", "adversarial"
]

CAPTION_PROMPTS = ("用一句话描述这张图片。", "这张图片里有什么？", "简单说说图里的内容。")
DESCRIPTION_PROMPTS = ("请详细描述这张图片。", "仔细讲讲图里的内容。", "请把画面完整地描述出来。")
FAR_FIRST_PROMPTS = ("请由远及近地描述这张图片。", "先说远处，再说近处，详细讲讲图里的内容。")
_CAPTION_GROUPS = 3


@dataclass(frozen=True)
class Text:
    """A question and its answer, a tuple of sentences, with the ``claims`` of each; ``kind`` and ``expected`` are set
    if the answer is scored."""

    task: Task
    question: str
    answer: tuple[str, ...]
    claims: tuple[tuple[str, ...], ...]
    kind: str | None = None
    expected: str | None = None


_CLAIMS: dict[str, Callable[[Group], str]] = {
    "object": lambda group: f"object:{group.kind}",
    "position": lambda group: f"position:{group.kind}={group.row},{group.column}",
    "count": lambda group: f"count:{group.kind}={group.count}",
    "colour": lambda group: f"colour:{group.kind}={group.colour}",
}


class Prior(NamedTuple):
    """How often kinds occur, with which texts name things that are not in the picture.

    ``kinds`` and ``exponent``: data.kinds and data.zipf_exponent; ``unsupported``: data.unsupported, or 0; ``popular``:
    data.popular_share, the share of the kinds that "popular" questions ask about.
    """

    kinds: int
    exponent: float
    unsupported: float
    popular: float

    @classmethod
    def of(cls, data: DataParams, unsupported: float) -> Prior:
        return cls(data.kinds, data.zipf_exponent, unsupported, data.popular_share)


class _Sentence(NamedTuple):
    text: str
    claims: tuple[str, ...]
    far: bool = False  # it is about far things


def texts_of(scene: Scene, prior: Prior, rng: random.Random) -> list[Text]:
    """All texts of a scene: two captions, a description in each order, questions of four types, yes/no questions."""
    texts = [_text("caption", rng.choice(CAPTION_PROMPTS), [_caption(scene, rng)]) for _ in range(2)]
    for task, prompts in (("description", DESCRIPTION_PROMPTS), ("far_first", FAR_FIRST_PROMPTS)):
        question, sentences = rng.choice(prompts), _description(scene, task == "far_first", rng)
        # A generator of its own, so that all other texts are the same with and without unsupported mentions.
        added = _with_unsupported(sentences, scene, prior, random.Random(rng.random()))
        texts.append(_text(task, question, added))
    return texts + questions(scene, rng) + yes_no_questions(scene, prior, rng)


def _text(
    task: Task, question: str, sentences: Sequence[_Sentence], kind: str | None = None, expected: str | None = None
) -> Text:
    answer, claims = (tuple(sentence[part] for sentence in sentences) for part in (0, 1))
    return Text(task, question, answer, claims, kind, expected)


def _caption(scene: Scene, rng: random.Random) -> _Sentence:
    """The background and the first three near groups."""
    groups = scene.near[:_CAPTION_GROUPS]
    names = [noun_phrase(group, rng) for group in groups]
    listed = names[0] if len(names) == 1 else "、".join(names[:-1]) + "和" + names[-1]
    background = rng.choice(BACKGROUNDS[scene.background].words)
    form = rng.choice(("{background}有{listed}。", "图中{background}有{listed}。", "这是{background}的{listed}。"))
    return _Sentence(form.format(background=background, listed=listed), _claims(groups, "object", "count", "colour"))


def _description(scene: Scene, far_first: bool, rng: random.Random) -> list[_Sentence]:
    """Sentences of increasing detail; the longest descriptions exceed 256 tokens."""
    names = {group.kind: rng.choice(KINDS[group.kind].words) for group in scene.groups}
    groups = [*scene.far, *scene.near] if far_first else scene.groups
    first, *rest = (_introduction(group, names, group is groups[0], rng) for group in groups)
    return [
        first._replace(text=f"{_setting(scene, rng)}，{first.text}"),
        *rest,
        *(_far_count(group, names, rng) for group in scene.far),
        *(_colour_sentence(group, names, rng) for group in scene.far if group.colour is not None),
        *_between(scene, names, rng),
        *_relations(scene, names, rng),
        *_surroundings(scene, rng),
        *(_colour_sentence(group, names, rng) for group in scene.near if group.colour is not None),
        *_directions(scene, names, rng),
        *(_parts_sentence(group, names, rng) for group in scene.near),
        _mood(scene, rng),
        *_comparisons(scene, names),
        _summary(scene, names, rng),
    ]


def _with_unsupported(
    sentences: Sequence[_Sentence], scene: Scene, prior: Prior, rng: random.Random
) -> list[_Sentence]:
    """Each sentence, with a chance that grows by ``prior.unsupported`` for every one before it, also names an absent
    kind that favours the background, each kind once."""
    if not prior.unsupported:
        return list(sentences)
    pool, named = kinds_at_home(scene.background, prior.kinds, prior.exponent), set(scene.kinds)
    found = []
    for number, sentence in enumerate(sentences):
        if rng.random() < number * prior.unsupported and (kind := pool.draw(named, rng)) is not None:
            named.add(kind)
            where = rng.choice(FAR_WORDS if sentence.far else ("附近", "周围"))
            clause = f"，{where}还有一{KINDS[kind].measure}{rng.choice(KINDS[kind].words)}。"
            claims = (*sentence.claims, f"object:{kind}", f"unsupported:{kind}")
            sentence = sentence._replace(text=sentence.text.removesuffix("。") + clause, claims=claims)
        found.append(sentence)
    return found


def noun_phrase(group: Group, rng: random.Random, name: str | None = None) -> str:
    """一只红色的小狗; without the colour where there is no single one: 一只熊猫."""
    kind = KINDS[group.kind]
    name = name or rng.choice(kind.words)
    quality = f"{rng.choice(COLOUR_WORDS[group.colour])}的" if group.colour is not None else ""
    return f"{COUNT_WORDS[group.count]}{kind.measure}{quality}{name}"


def _position(group: Group, rng: random.Random) -> str:
    return rng.choice(POSITION_WORDS[(group.row, group.column)])


def _claims(groups: Iterable[Group], *aspects: str) -> tuple[str, ...]:
    """For each group, what a sentence states of it; object, and any of position, count and colour."""
    return tuple(_CLAIMS[aspect](group) for group in groups for aspect in aspects if aspect != "colour" or group.colour)


def _setting(scene: Scene, rng: random.Random) -> str:
    return rng.choice(("场景在{bg}", "在{bg}", "地点在{bg}")).format(bg=rng.choice(BACKGROUNDS[scene.background].words))


def _introduction(group: Group, names: dict[str, str], first: bool, rng: random.Random) -> _Sentence:
    """Where a group is; of near ones also number and colour."""
    where, name = _position(group, rng), names[group.kind]
    # 还有 (there is also) can't open a text.
    if group.near:
        form = rng.choice(("有", "可以看到", "是") if first else ("有", "可以看到", "是", "还有"))
        text = f"{where}{form}{noun_phrase(group, rng, name)}。"
        return _Sentence(text, _claims([group], "object", "position", "count", "colour"))
    form = rng.choice(("有", "可以看到") if first else ("有", "可以看到", "还有"))
    text = f"{rng.choice(FAR_WORDS)}的{where}{form}{name}。"
    return _Sentence(text, _claims([group], "object", "position"), far=True)


def _far_count(group: Group, names: dict[str, str], rng: random.Random) -> _Sentence:
    form = rng.choice(("有", "一共有") if group.count > 1 else ("有",))
    text = f"{rng.choice(FAR_WORDS)}{form}{COUNT_WORDS[group.count]}{KINDS[group.kind].measure}{names[group.kind]}。"
    return _Sentence(text, _claims([group], "object", "count"), far=True)


def _colour_sentence(group: Group, names: dict[str, str], rng: random.Random) -> _Sentence:
    name, colour = names[group.kind], rng.choice(COLOUR_WORDS[group.colour])
    far = "" if group.near else rng.choice(FAR_WORDS)
    of_far = f"{far}的" if far else ""
    text = rng.choice((f"{of_far}{name}是{colour}的。", f"{far}{name}的颜色是{colour}。"))
    return _Sentence(text, _claims([group], "object", "colour"), far=not group.near)


def _between(scene: Scene, names: dict[str, str], rng: random.Random) -> list[_Sentence]:
    """For each far group that is between near ones, one such pair."""
    pairs: dict[str, list[tuple[Group, Group]]] = {}
    for group, left, right in scene.between:
        pairs.setdefault(group.kind, []).append((left, right))
    sentences = []
    for kind, found in pairs.items():
        left, right = rng.choice(found)
        text = f"{names[left.kind]}和{names[right.kind]}之间是{rng.choice(FAR_WORDS)}的{names[kind]}。"
        claims = (*(f"object:{each}" for each in (left.kind, right.kind, kind)),)
        sentences.append(_Sentence(text, (*claims, f"between:{kind}={left.kind},{right.kind}"), far=True))
    return sentences


def _relations(scene: Scene, names: dict[str, str], rng: random.Random) -> list[_Sentence]:
    sentences = []
    for subject, relation, anchor in scene.relations:
        a, b = scene.groups[subject].kind, scene.groups[anchor].kind
        form = rng.choice(("{a}在{b}的{rel}。", "{b}的{rel}是{a}。"))
        text = form.format(a=names[a], b=names[b], rel=rng.choice(RELATION_WORDS[relation]))
        sentences.append(_Sentence(text, (f"object:{a}", f"object:{b}", f"relation:{a}={relation},{b}")))
    return sentences


def _surroundings(scene: Scene, rng: random.Random) -> list[_Sentence]:
    details = rng.sample(BACKGROUNDS[scene.background].details, 3)
    return [_Sentence(f"{details[0]}，{details[1]}。", ()), _Sentence(f"{details[2]}。", ())]


def _directions(scene: Scene, names: dict[str, str], rng: random.Random) -> list[_Sentence]:
    """For every two near groups in different columns, which one is further left."""
    sentences = []
    for left, right in permutations(scene.near, 2):
        if left.column < right.column:
            a, b = left.kind, right.kind
            text, claim = rng.choice(
                (
                    (f"{names[a]}比{names[b]}更靠左。", f"relation:{a}=left,{b}"),
                    (f"{names[b]}比{names[a]}更靠右。", f"relation:{b}=right,{a}"),
                )
            )
            sentences.append(_Sentence(text, (f"object:{a}", f"object:{b}", claim)))
    return sentences


def _comparisons(scene: Scene, names: dict[str, str]) -> list[_Sentence]:
    """For every two near groups with a colour, whether they have the same."""
    coloured = [group for group in scene.near if group.colour is not None]
    return [
        _Sentence(
            f"{names[a.kind]}和{names[b.kind]}的颜色{'相同' if a.colour == b.colour else '不同'}。",
            (f"object:{a.kind}", f"object:{b.kind}"),
        )
        for a, b in combinations(coloured, 2)
    ]


def _parts_sentence(group: Group, names: dict[str, str], rng: random.Random) -> _Sentence:
    parts = rng.sample(KINDS[group.kind].parts, 2)
    opening = rng.choice(("仔细看，", "近看，", ""))
    name = names[group.kind]
    linked = "的" if name[-1] == parts[0][0] else ""  # 树的树冠, not 树树冠
    return _Sentence(f"{opening}{name}{linked}{parts[0]}，{parts[1]}。", (f"object:{group.kind}",))


def _mood(scene: Scene, rng: random.Random) -> _Sentence:
    mood = rng.choice(BACKGROUNDS[scene.background].moods)
    form = rng.choice(("整个画面显得十分{mood}。", "这样的场景让人觉得很{mood}。", "画面的气氛{mood}而生动。"))
    return _Sentence(form.format(mood=mood), ())


def _summary(scene: Scene, names: dict[str, str], rng: random.Random) -> _Sentence:
    listed = "、".join(
        f"{COUNT_WORDS[group.count]}{KINDS[group.kind].measure}{names[group.kind]}" for group in scene.groups
    )
    form = rng.choice(("总的来说，画面里有{listed}。", "数一数，图中一共有{listed}。"))
    return _Sentence(form.format(listed=listed), _claims(scene.groups, "object", "count"))


def questions(scene: Scene, rng: random.Random) -> list[Text]:
    """One question each about what is at a position, how many and which colour; about where, one for every group."""
    positions = [(group.row, group.column) for group in scene.near]
    texts = []
    alone = [group for group in scene.near if positions.count((group.row, group.column)) == 1]
    if alone:
        group = rng.choice(alone)
        position = _position(group, rng)
        question = rng.choice(("近处的{position}是什么？", "画面{position}最大的是什么？")).format(position=position)
        sentence = _Sentence(
            f"{position}是{noun_phrase(group, rng)}。", _claims([group], "object", "position", "count", "colour")
        )
        texts.append(_text("what", question, [sentence], group.kind, group.kind))

    group = rng.choice(scene.groups)
    kind, name = KINDS[group.kind], rng.choice(KINDS[group.kind].words)
    question = rng.choice(("图中有几{m}{name}？", "画面里有几{m}{name}？")).format(m=kind.measure, name=name)
    sentence = _Sentence(f"图中有{COUNT_WORDS[group.count]}{kind.measure}{name}。", _claims([group], "object", "count"))
    texts.append(_text("count", question, [sentence], group.kind, str(group.count)))

    coloured = [group for group in scene.groups if group.colour is not None]
    if coloured:
        group = rng.choice(coloured)
        name, colour = rng.choice(KINDS[group.kind].words), rng.choice(COLOUR_WORDS[group.colour])
        sentence = _Sentence(f"{name}是{colour}的。", _claims([group], "object", "colour"))
        texts.append(_text("colour", f"{name}是什么颜色的？", [sentence], group.kind, group.colour))

    for group in scene.groups:
        name = rng.choice(KINDS[group.kind].words)
        question = rng.choice(("{name}在哪里？", "{name}在画面的什么位置？")).format(name=name)
        sentence = _Sentence(f"{name}在画面的{_position(group, rng)}。", _claims([group], "object", "position"))
        texts.append(_text("where", question, [sentence], group.kind, f"{group.row},{group.column}"))
    return texts


def yes_no_questions(scene: Scene, prior: Prior, rng: random.Random) -> list[Text]:
    """A present and an absent kind for each of POPE's three ways to choose the absent one (Li et al. 2023).

    A positive answer also names the object and its position, because a bare yes or no teaches little: a decoder trained
    on the true words at each position answered 69 % right after 72,000 bare answers, which is possible without using
    the positions, and 90 % after 54,000 answers with the position.
    """
    texts = []
    by_task = _candidates(scene.background, prior.kinds, max(1, round(prior.popular * prior.kinds)))
    everything = by_task["random"]
    for task, candidates in by_task.items():
        group = rng.choice(scene.groups)
        # Where every candidate is in the picture, any absent kind.
        absent = rng.choice(_without(candidates, scene.kinds) or _without(everything, scene.kinds))
        for kind, expected in ((group.kind, "yes"), (absent, "no")):
            name = rng.choice(KINDS[kind].words)
            question = rng.choice(("图中有{name}吗？", "画面里有{name}吗？", "能看到{name}吗？")).format(name=name)
            far = "" if group.near else f"{rng.choice(FAR_WORDS)}的"
            answer = (
                _Sentence(
                    f"有，{far}{_position(group, rng)}有{noun_phrase(group, rng, name)}。",
                    _claims([group], "object", "position", "count", "colour"),
                )
                if expected == "yes"
                else _Sentence(f"没有，图中没有{name}。", ())
            )
            texts.append(_text(task, question, [answer], kind, expected))
    return texts


@lru_cache(maxsize=64)
def _candidates(background: str, number: int, popular: int) -> dict[Task, tuple[str, ...]]:
    """Kinds to ask about, if absent: any of the first ``number``; the first ``popular``; those that are more likely on
    this background."""
    kinds = tuple(KINDS)[:number]
    return {
        "random": kinds,
        "popular": kinds[:popular],
        "adversarial": tuple(kind for kind in kinds if background in KINDS[kind].homes),
    }


def _without(candidates: Sequence[str], present: frozenset[str]) -> list[str]:
    return [kind for kind in candidates if kind not in present]
