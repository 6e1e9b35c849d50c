"""Which wrong mentions are misnamed things of the picture, and which are hallucinated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stages.common.world.scene import Group, Scene
from stages.common.world.vocabulary import KINDS
from stages.evaluate.score.claims import Claim
from stages.evaluate.score.mentions import Mention


def misnamed_kinds(mentions: Sequence[Mention], claims: Sequence[Claim], scene: Scene) -> frozenset[str]:
    """The kinds that a text names wrongly, each in place of one thing of the picture that it does not name.

    A wrong kind can be the name of a group that the text does not name if both have the same parent class (a cat called
    a dog) and the first place or the first colour that the text states of it is the group's, if it has a single colour.
    Each unnamed group
    explains at most one wrong kind, and as many wrong kinds are explained as possible: a maximum bipartite matching;
    of kinds that compete for one group, the kind mentioned first is explained. All other wrong kinds are hallucinated.

    ``mentions`` are those that are not denied, ``claims`` all that the text states of them.
    """
    colours: dict[str, str] = {}
    for mention in mentions:
        if mention.colour is not None:
            colours.setdefault(mention.kind, mention.colour)
    places: dict[str, object] = {}
    for claim in claims:
        if claim.aspect == "position":
            places.setdefault(claim.kinds[0], claim.stated)
    named = dict.fromkeys(mention.kind for mention in mentions)
    unnamed = [group for group in scene.groups if group.kind not in named]

    def fits(kind: str, group: Group) -> bool:
        return KINDS[kind].parent == KINDS[group.kind].parent and (
            (group.colour is not None and colours.get(kind) == group.colour)
            or places.get(kind) == (group.row, group.column)
        )

    wrong = [kind for kind in named if kind not in scene.kinds]
    return frozenset(
        maximum_matching({kind: [i for i, group in enumerate(unnamed) if fits(kind, group)] for kind in wrong})
    )


def maximum_matching(choices: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """As many keys as possible, each with a choice of its own (Kuhn 1955: augmenting paths).

    Keys that come first are matched first and stay matched.
    """
    owner: dict[int, str] = {}

    def assign(key: str, tried: set[int]) -> bool:
        for choice in choices[key]:
            if choice not in tried:
                tried.add(choice)
                if choice not in owner or assign(owner[choice], tried):
                    owner[choice] = key
                    return True
        return False

    for key in choices:
        assign(key, set())
    return {key: choice for choice, key in owner.items()}
