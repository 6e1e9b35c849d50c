"""How much a checkpoint's losses of reference texts depend on the picture.

Three pictures are compared: the text's own, another one of the same background, and a blind one (the mean features of
train pictures). A gap in nats grows with confidence as well as with what the model sees; two_alternative does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from stages.common.world.scene import Scene
from stages.evaluate.files import TextLosses
from stages.evaluate.score.bootstrap import Metric, Sums, divide, ratio
from stages.evaluate.score.lexicon import Lexicon
from stages.evaluate.score.mentions import Mention, colour_spans, find_mentions, naming_spans

TOKEN_CLASSES = ("object", "colour", "rest")

Span = tuple[int, int, str]  # characters start:end of a text, and their class


def world_spans(text: str) -> Iterator[Span]:
    """The words that name a kind of object (see naming_spans), or a colour, for the first time in a text of the
    built-in world.

    A text can repeat its own words without a look at the picture. With repetitions counted, a checkpoint that learns
    to be consistent with its own text would seem to depend less on the picture.
    """
    yield from ((*span, "object") for mention in _first_mentions(text) for span in naming_spans(text, mention))
    yield from _first_colours(text, colour_spans(text))


def lexicon_spans(text: str, lexicon: Lexicon) -> Iterator[Span]:
    """The words that name a thing of the lexicon, or a colour, for the first time in a text."""
    things = {thing.concept: (thing.start, thing.end) for thing in reversed(lexicon.find(text))}
    yield from ((start, end, "object") for start, end in things.values())
    yield from _first_colours(text, lexicon.colour_spans(text))


def _first_mentions(text: str) -> list[Mention]:
    return list({mention.kind: mention for mention in reversed(find_mentions(text))}.values())


def _first_colours(text: str, spans: list[tuple[int, int]]) -> Iterator[Span]:
    first = {text[start:end]: (start, end) for start, end in reversed(spans)}
    yield from ((start, end, "colour") for start, end in first.values())


def token_classes(losses: TextLosses, spans: Iterable[Span]) -> np.ndarray:
    """Indices into TOKEN_CLASSES [T]. A token that covers part of a word has the word's class, of two the first."""
    rest = TOKEN_CLASSES.index("rest")
    # Two more than there are characters: where a token that closes the text starts, and where it ends.
    characters = np.full(len(losses.text) + 2, rest)
    for start, end, name in spans:
        characters[start:end] = np.minimum(characters[start:end], TOKEN_CLASSES.index(name))
    bounds = np.stack([losses.starts, np.maximum(losses.ends, losses.starts + 1)], axis=1)
    return np.minimum.reduceat(characters, bounds.ravel())[::2] if len(bounds) else np.zeros(0, int)


def loss_counts(losses: TextLosses, spans_of: Callable[[str], Iterable[Span]]) -> dict[str, float]:
    """What a text adds to the sums of LOSS_METRICS; nothing to the gaps of a picture that it was not shown with."""
    counts = {"targets": len(losses.own), "nats": float(losses.own.sum(dtype=float))}
    classes = token_classes(losses, spans_of(losses.text))
    for picture, against in (("swap", losses.other), ("blind", losses.blind)):
        if len(against):
            gaps = against.astype(float) - losses.own
            for index, name in enumerate(TOKEN_CLASSES):
                counts[f"{picture}_{name}_targets"] = int((classes == index).sum())
                counts[f"{picture}_{name}_nats"] = float(gaps[classes == index].sum())
    return counts


def _gap(picture: str, *classes: str) -> Metric:
    def gap(sums: Sums) -> np.ndarray:
        nats, targets = (
            np.sum([sums[f"{picture}_{name}_{what}"] for name in classes], axis=0) for what in ("nats", "targets")
        )
        return divide(nats, targets)

    return gap


LOSS_METRICS: dict[str, Metric] = {
    "loss": ratio("nats", "targets"),
    "swap_gap": _gap("swap", *TOKEN_CLASSES),
    **{f"swap_gap_{name}": _gap("swap", name) for name in TOKEN_CLASSES},
    "blind_gap": _gap("blind", *TOKEN_CLASSES),
    "blind_gap_object": _gap("blind", "object"),
}


def two_alternative_counts(losses: TextLosses, own: Scene, other: Scene) -> dict[str, float]:
    """What a text adds to the sums of ALTERNATIVE_METRICS, over all kinds and over those of near and far things.

    Of each kind of object that is in the own scene and not in the other one, the first mention is counted: whether
    the own picture gives it the lower loss, summed over the tokens of its noun and measure word. Of equal losses, a
    half.
    """
    counts: dict[str, float] = {}
    distance = {group.kind: "near" if group.near else "far" for group in own.groups}
    for mention in _first_mentions(losses.text):
        if mention.negated or mention.kind not in own.kinds - other.kinds:
            continue
        spans = naming_spans(losses.text, mention)
        covers = np.any([(losses.starts < end) & (losses.ends > start) for start, end in spans], axis=0)
        if covers.any():
            own_nats, other_nats = (float(nats[covers].sum(dtype=float)) for nats in (losses.own, losses.other))
            right = 0.5 * ((own_nats < other_nats) + (own_nats <= other_nats))
            for suffix in ("", f"_{distance[mention.kind]}"):
                counts[f"alternatives{suffix}"] = counts.get(f"alternatives{suffix}", 0) + 1
                counts[f"right{suffix}"] = counts.get(f"right{suffix}", 0.0) + right
    return counts


ALTERNATIVE_METRICS: dict[str, Metric] = {
    f"two_alternative{suffix}": ratio(f"right{suffix}", f"alternatives{suffix}") for suffix in ("", "_near", "_far")
}
