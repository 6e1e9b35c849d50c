"""Chinese texts for a scene, written from its ground truth.

Objects are named in reading order (top row first, left to right). A description adds detail sentence by sentence:
first every object with its position, then relations, surroundings, colours, directions, parts, mood, comparisons and a
summary. Any number of leading sentences is a complete text.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Literal

from stages.common.world.scene import Group, Scene
from stages.common.world.vocabulary import (
    BACKGROUNDS,
    COLOUR_WORDS,
    COUNT_WORDS,
    KINDS,
    POSITION_WORDS,
    RELATION_WORDS,
)

Task = Literal["caption", "description", "what", "count", "colour", "where", "random", "popular", "adversarial"]

CAPTION_PROMPTS = ("用一句话描述这张图片。", "这张图片里有什么？", "简单说说图里的内容。")
DESCRIPTION_PROMPTS = ("请详细描述这张图片。", "仔细讲讲图里的内容。", "请把画面完整地描述出来。")
_CAPTION_GROUPS = 3


@dataclass(frozen=True)
class Text:
    """A question and its answer, a tuple of sentences; ``kind`` and ``expected`` are set if the answer is scored."""

    task: Task
    question: str
    answer: tuple[str, ...]
    kind: str | None = None
    expected: str | None = None


def texts_of(scene: Scene, rng: random.Random) -> list[Text]:
    """All texts of a scene: two captions, two descriptions, four types of questions, six yes/no questions."""
    texts = [Text("caption", rng.choice(CAPTION_PROMPTS), (caption(scene, rng),)) for _ in range(2)]
    texts += [Text("description", rng.choice(DESCRIPTION_PROMPTS), description(scene, rng)) for _ in range(2)]
    return texts + questions(scene, rng) + yes_no_questions(scene, rng)


def caption(scene: Scene, rng: random.Random) -> str:
    """One sentence with the background and the first three groups."""
    names = [noun_phrase(group, rng) for group in scene.groups[:_CAPTION_GROUPS]]
    listed = names[0] if len(names) == 1 else "、".join(names[:-1]) + "和" + names[-1]
    background = rng.choice(BACKGROUNDS[scene.background].words)
    return rng.choice(
        ("{background}有{listed}。", "图中{background}有{listed}。", "这是{background}的{listed}。")
    ).format(background=background, listed=listed)


def description(scene: Scene, rng: random.Random) -> tuple[str, ...]:
    """Sentences of increasing detail; the longest descriptions exceed 256 tokens."""
    names = {group.kind: rng.choice(KINDS[group.kind].words) for group in scene.groups}
    return (
        *_introductions(scene, names, rng),
        *_relations(scene, names, rng),
        *_surroundings(scene, rng),
        *(_colour_sentence(group, names, rng) for group in scene.groups),
        *_directions(scene, names, rng),
        *(_parts_sentence(group, names, rng) for group in scene.groups),
        _mood(scene, rng),
        *_comparisons(scene, names),
        _summary(scene, names, rng),
    )


def noun_phrase(group: Group, rng: random.Random, name: str | None = None) -> str:
    """一只红色的小狗, 两位穿蓝色衣服的女士."""
    kind = KINDS[group.kind]
    name = name or rng.choice(kind.words)
    colour = rng.choice(COLOUR_WORDS[group.colour])
    quality = f"穿{colour}衣服的" if kind.clothed else f"{colour}的"
    return f"{COUNT_WORDS[group.count]}{kind.measure}{quality}{name}"


def _position(group: Group, rng: random.Random) -> str:
    return rng.choice(POSITION_WORDS[(group.row, group.column)])


def _introductions(scene: Scene, names: dict[str, str], rng: random.Random) -> list[str]:
    first, *rest = scene.groups
    opening = rng.choice(("场景在{bg}，{pos}有{np}。", "在{bg}，{pos}有{np}。", "{bg}的{pos}可以看到{np}。"))
    sentences = [
        opening.format(
            bg=rng.choice(BACKGROUNDS[scene.background].words),
            pos=_position(first, rng),
            np=noun_phrase(first, rng, names[first.kind]),
        )
    ]
    for group in rest:
        form = rng.choice(("{pos}有{np}。", "{pos}还有{np}。", "{pos}可以看到{np}。", "{pos}是{np}。"))
        sentences.append(form.format(pos=_position(group, rng), np=noun_phrase(group, rng, names[group.kind])))
    return sentences


def _relations(scene: Scene, names: dict[str, str], rng: random.Random) -> list[str]:
    sentences = []
    for subject, relation, anchor in scene.relations:
        form = rng.choice(("{a}在{b}的{rel}。", "{b}的{rel}是{a}。"))
        sentences.append(
            form.format(
                a=names[scene.groups[subject].kind],
                b=names[scene.groups[anchor].kind],
                rel=rng.choice(RELATION_WORDS[relation]),
            )
        )
    return sentences


def _surroundings(scene: Scene, rng: random.Random) -> list[str]:
    details = rng.sample(BACKGROUNDS[scene.background].details, 3)
    return [f"{details[0]}，{details[1]}。", f"{details[2]}。"]


def _colour_sentence(group: Group, names: dict[str, str], rng: random.Random) -> str:
    colour = rng.choice(COLOUR_WORDS[group.colour])
    name = names[group.kind]
    if KINDS[group.kind].clothed:
        return rng.choice(("{name}穿着{colour}的衣服，非常显眼。", "{name}的衣服是{colour}的。")).format(
            name=name, colour=colour
        )
    return rng.choice(("{name}是{colour}的，非常显眼。", "{name}的颜色是{colour}。")).format(name=name, colour=colour)


def _directions(scene: Scene, names: dict[str, str], rng: random.Random) -> list[str]:
    """For every two groups in different columns, which one is further left."""
    sentences = []
    for left, right in permutations(scene.groups, 2):
        if left.column < right.column:
            a, b = names[left.kind], names[right.kind]
            sentences.append(rng.choice((f"{a}比{b}更靠左。", f"{b}比{a}更靠右。")))
    return sentences


def _comparisons(scene: Scene, names: dict[str, str]) -> list[str]:
    """For every two groups, whether they have the same colour."""
    return [
        f"{names[a.kind]}和{names[b.kind]}的颜色{'相同' if a.colour == b.colour else '不同'}。"
        for a, b in combinations(scene.groups, 2)
    ]


def _parts_sentence(group: Group, names: dict[str, str], rng: random.Random) -> str:
    parts = rng.sample(KINDS[group.kind].parts, 2)
    opening = rng.choice(("仔细看，", "近看，", ""))
    return f"{opening}{names[group.kind]}{parts[0]}，{parts[1]}。"


def _mood(scene: Scene, rng: random.Random) -> str:
    mood = rng.choice(BACKGROUNDS[scene.background].moods)
    return rng.choice(("整个画面显得十分{mood}。", "这样的场景让人觉得很{mood}。", "画面的气氛{mood}而生动。")).format(
        mood=mood
    )


def _summary(scene: Scene, names: dict[str, str], rng: random.Random) -> str:
    listed = "、".join(
        f"{COUNT_WORDS[group.count]}{KINDS[group.kind].measure}{names[group.kind]}" for group in scene.groups
    )
    return rng.choice(("总的来说，画面里有{listed}。", "数一数，图中一共有{listed}。")).format(listed=listed)


def questions(scene: Scene, rng: random.Random) -> list[Text]:
    """One question each about what is at a position, how many and which colour; about where, one for every group."""
    positions = [(group.row, group.column) for group in scene.groups]
    texts = []
    alone = [g for g in scene.groups if positions.count((g.row, g.column)) == 1]
    if alone:
        group = rng.choice(alone)
        position = _position(group, rng)
        question = rng.choice(("{position}是什么？", "画面{position}有什么？")).format(position=position)
        texts.append(Text("what", question, (f"{position}是{noun_phrase(group, rng)}。",), group.kind, group.kind))

    group = rng.choice(scene.groups)
    kind, name = KINDS[group.kind], rng.choice(KINDS[group.kind].words)
    question = rng.choice(("图中有几{m}{name}？", "画面里有几{m}{name}？")).format(m=kind.measure, name=name)
    answer = f"图中有{COUNT_WORDS[group.count]}{kind.measure}{name}。"
    texts.append(Text("count", question, (answer,), group.kind, str(group.count)))

    group = rng.choice(scene.groups)
    name, colour = rng.choice(KINDS[group.kind].words), rng.choice(COLOUR_WORDS[group.colour])
    if KINDS[group.kind].clothed:
        question, answer = f"{name}穿什么颜色的衣服？", f"{name}穿{colour}的衣服。"
    else:
        question, answer = f"{name}是什么颜色的？", f"{name}是{colour}的。"
    texts.append(Text("colour", question, (answer,), group.kind, group.colour))

    for group in scene.groups:
        name = rng.choice(KINDS[group.kind].words)
        question = rng.choice(("{name}在哪里？", "{name}在画面的什么位置？")).format(name=name)
        answer = f"{name}在画面的{_position(group, rng)}。"
        texts.append(Text("where", question, (answer,), group.kind, f"{group.row},{group.column}"))
    return texts


def yes_no_questions(scene: Scene, rng: random.Random) -> list[Text]:
    """A present and an absent kind for each of POPE's three ways to choose the absent one (Li et al. 2023).

    A positive answer also names the object and its position, because a bare yes or no teaches little: a decoder trained
    on the true words at each position answered 69 % right after 72,000 bare answers, which is possible without using
    the positions, and 90 % after 54,000 answers with the position.
    """
    texts = []
    for task, candidates in absent_kinds(scene).items():
        group, absent = rng.choice(scene.groups), rng.choice(candidates)
        for kind, expected in ((group.kind, "yes"), (absent, "no")):
            name = rng.choice(KINDS[kind].words)
            question = rng.choice(("图中有{name}吗？", "画面里有{name}吗？", "能看到{name}吗？")).format(name=name)
            yes = f"有，{_position(group, rng)}有{noun_phrase(group, rng, name)}。"
            answer = yes if expected == "yes" else f"没有，图中没有{name}。"
            texts.append(Text(task, question, (answer,), kind, expected))
    return texts


def absent_kinds(scene: Scene) -> dict[Task, list[str]]:
    """Absent kinds to ask about: any; the most frequent ones; those that are more likely on this background."""
    absent = [kind for kind in KINDS if kind not in scene.kinds]
    return {
        "random": absent,
        "popular": [kind for kind in absent if KINDS[kind].frequency > 1.0],
        "adversarial": [kind for kind in absent if scene.background in KINDS[kind].homes] or absent,
    }
