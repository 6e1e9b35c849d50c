"""Texts about photographs, compared with a manifest of what the photographs show. All other things are unsupported.

CHAIR (Rohrbach et al. 2018) with a larger vocabulary. Nobody can list everything in a natural image, so the manifest
lists what a text should name, and what it may name.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from stages.common.core.errors import InputError
from stages.common.core.yaml_files import Strict, read_checked
from stages.evaluate.score.bootstrap import Metric, ratio
from stages.evaluate.score.lexicon import CLOTHES, PERSON, Gender, Lexicon, Thing
from stages.evaluate.score.texts import repetition

MANIFEST = Path("data/eval/photographs.yaml")
ASPECTS = ("gender", "colour", "count")  # of the main subject
Judgement = Literal["right", "wrong", "not stated"]


class Subject(Strict):
    """The main subject. ``gender`` and ``count`` are None if the picture leaves them open."""

    concept: str
    gender: Gender | None
    colours: tuple[str, ...]
    count: int | None


class Photograph(Strict):
    there: tuple[str, ...]
    allowed: tuple[str, ...]
    subject: Subject


Manifest = Mapping[str, Photograph]


def image_key(name: str) -> str:
    """A picture's name without folder and extension, in Unicode form NFC."""
    name = unicodedata.normalize("NFC", PurePosixPath(name.strip().replace("\\", "/")).name)
    stem, dot, ending = name.rpartition(".")
    return stem if dot and ending.lower() in ("jpg", "jpeg", "png", "webp", "gif", "bmp") else name


def load_manifest(path: Path, lexicon: Lexicon) -> Manifest:
    """Raises InputError that names the picture and what is wrong with its entry."""
    manifest = read_checked(path, dict[str, Photograph])
    if not manifest:
        raise InputError(f"{path} lists no picture; add at least one")
    for name, entry in manifest.items():
        for concept in (*entry.there, *entry.allowed, entry.subject.concept):
            if concept not in lexicon.entries:
                raise InputError(f"{path}: {name}: the lexicon has no concept {concept}; add it there or use its name")
        for colour in entry.subject.colours:
            if colour not in lexicon.colours:
                raise InputError(f"{path}: {name}: the lexicon has no colour {colour}")
    keyed = {image_key(name): entry for name, entry in manifest.items()}
    if len(keyed) < len(manifest):
        raise InputError(
            f"{path}: two entries name the same picture (folder and extension do not count); keep one of them"
        )
    return keyed


@dataclass(frozen=True)
class PhotographScore:
    """``mentions``: (thing, whether the manifest supports it), without those that are denied. ``missed``: concepts of
    the manifest's ``there`` that the text does not name; ``there``: how many it lists."""

    text: str
    mentions: tuple[tuple[Thing, bool], ...]
    missed: tuple[str, ...]
    there: int
    subject: Mapping[str, Judgement]

    @property
    def unsupported(self) -> list[str]:
        return list(dict.fromkeys(thing.word for thing, supported in self.mentions if not supported))

    def counts(self) -> dict[str, float]:
        """What this text adds to the sums of PHOTOGRAPH_METRICS."""
        wrong = sum(not supported for _, supported in self.mentions)
        return {
            "texts": 1,
            "texts_with_mentions": bool(self.mentions),
            "mentions": len(self.mentions),
            "unsupported": wrong,
            "texts_unsupported": wrong > 0,
            "there": self.there,
            "named": self.there - len(self.missed),
            "characters": len(self.text),
            "repetition": repetition(self.text),
            **{aspect: judgement != "not stated" for aspect, judgement in self.subject.items()},
            **{f"{aspect}_right": judgement == "right" for aspect, judgement in self.subject.items()},
        }


PHOTOGRAPH_METRICS: dict[str, Metric] = {
    "recall": ratio("named", "there"),
    "chair_i": ratio("unsupported", "mentions"),
    "chair_s": ratio("texts_unsupported", "texts_with_mentions"),
    "unsupported": ratio("unsupported", "texts"),
    "length": ratio("characters", "texts"),
    "repetition": ratio("repetition", "texts"),
    **{f"subject_{aspect}": ratio(f"{aspect}_right", aspect) for aspect in ASPECTS},
}


def score_photograph(text: str, photograph: Photograph, lexicon: Lexicon) -> PhotographScore:
    """A thing is supported if the manifest lists it or something that it is a general word for (动物 for 熊猫)."""
    listed = {*photograph.there, *photograph.allowed}
    supported = listed.union(*(lexicon.ancestors[concept] for concept in listed))
    things = [thing for thing in lexicon.find(text) if not thing.negated]
    named = {concept for thing in things for concept in (thing.concept, *lexicon.ancestors[thing.concept])}
    return PhotographScore(
        text=text,
        mentions=tuple((thing, thing.concept in supported) for thing in things),
        missed=tuple(concept for concept in photograph.there if concept not in named),
        there=len(photograph.there),
        subject=judge_subject(text, things, photograph.subject, lexicon),
    )


def judge_subject(text: str, things: Sequence[Thing], subject: Subject, lexicon: Lexicon) -> dict[str, Judgement]:
    """Whether the text's first statements of the main subject's gender, colour and count are right.

    A word that states a gender is about a subject that has one (男人, where the picture shows a 舞者), and a person's
    colour is that of the clothes. A gender or a count that the picture leaves open is not judged.
    """
    genders = [gender for thing in things if (gender := lexicon.gender(thing.concept))]
    genders = genders or lexicon.pronoun_genders(text)
    about = [
        thing
        for thing in things
        if lexicon.related(thing.concept, subject.concept)
        or (subject.gender is not None and lexicon.gender(thing.concept) is not None)
    ]
    worn = [thing for thing in things if lexicon.is_a(thing.concept, CLOTHES)]
    coloured = [*about, *worn] if lexicon.is_a(subject.concept, PERSON) else about
    colours = next((thing.colours for thing in coloured if thing.colours), ())
    count = next((thing.count for thing in about if thing.count is not None), None)

    def judge(stated: bool, right: bool) -> Judgement:
        return "not stated" if not stated else "right" if right else "wrong"

    return {
        "gender": judge(bool(genders) and subject.gender is not None, genders[:1] == [subject.gender]),
        "colour": judge(bool(colours), set(colours) <= set(subject.colours)),
        "count": judge(count is not None and subject.count is not None, count == subject.count),
    }


def mention_rows(score: PhotographScore) -> list[dict[str, Any]]:
    """``mentions`` of a row of answers.jsonl."""
    return [
        {
            "kind": thing.concept,
            "word": thing.word,
            "start": thing.start,
            "end": thing.end,
            "supported": supported,
            "hedged": thing.hedged,
        }
        for thing, supported in score.mentions
    ]
