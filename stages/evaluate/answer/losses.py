"""Losses of reference texts: with their own pictures, with others, and with a blind one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stages.common.data.chat import IGNORED, IMAGE, Encoder, dialogue_text
from stages.common.data.features import MeanPicture, Pictures
from stages.common.data.samples import Sample, cut
from stages.evaluate.answer.answerer import BLIND, Answerer
from stages.evaluate.files import TextLosses


class Reference(NamedTuple):
    """A text that the data has for a row. ``text``, ``starts`` and ``ends``: see TextLosses."""

    id: str
    task: str
    text: str
    starts: np.ndarray
    ends: np.ndarray
    sample: Sample


class Other(NamedTuple):
    """Pictures that stand in for a text's own ones, and the row that the first of them is from."""

    id: str
    pictures: Sequence[int]


def make_reference(
    answerer: Answerer, row: str, task: str, turns: Sequence[tuple[str, Sequence[str]]], pictures: Sequence[int]
) -> Reference:
    """The answers of (question, answer sentences) turns, cut off where the decoder's positions end."""
    encoder, config = answerer.encoder, answerer.model.config
    ids, labels = encoder.dialogue(turns)
    whole = (pictures, ids, labels)
    positions = config.text_config.max_position_embeddings
    sample = cut(whole, encoder.token_id(IMAGE), config.image_tokens, positions)
    starts, ends = target_spans(encoder, turns)
    kept = int((sample[2][1:] != IGNORED).sum())
    text = "\n".join("".join(answer) for _, answer in turns)
    return Reference(row, task, text, starts[:kept], ends[:kept], sample)


def target_spans(encoder: Encoder, turns: Sequence[tuple[str, Sequence[str]]]) -> tuple[np.ndarray, np.ndarray]:
    """Characters of the answers, joined by line ends, that each target token covers: starts and ends [T], int32."""
    joined = [(question, "".join(answer)) for question, answer in turns]
    text, spans = dialogue_text(encoder.format, joined)
    found: list[tuple[int, int]] = []
    base = 0
    offsets = encoder.offsets(text)
    for (first, stop), (_, answer) in zip(spans, joined, strict=True):
        found += [
            (base + min(start - first, len(answer)), base + min(end - first, len(answer)))
            for start, end in offsets
            if first <= start < stop
        ]
        base += len(answer) + 1
    starts, ends = np.array(found, np.int32).reshape(-1, 2).T
    return starts, ends


def text_losses(
    answerer: Answerer,
    references: Sequence[Reference],
    others: Sequence[Other | None],
    pictures: Pictures,
    blind: MeanPicture,
    label: str,
) -> list[TextLosses]:
    """``others``: of each reference, the pictures that stand in for its own; None: there are none."""
    samples: list[Sample] = []
    for reference, other in zip(references, others, strict=True):
        own, *text = reference.sample
        samples.append((own, *text))
        if len(own):
            samples.append(([BLIND] * len(own), *text))
        if other is not None:
            samples.append((other.pictures, *text))
    losses = iter(answerer.target_losses(samples, pictures, f"{label} losses", blind))
    none = np.zeros(0, np.float32)
    found = []
    for reference, other in zip(references, others, strict=True):
        text = (reference.id, reference.task, reference.text, reference.starts, reference.ends)
        with_own = next(losses)
        with_blind = next(losses) if len(reference.sample[0]) else none
        with_other, other_id = (none, "") if other is None else (next(losses), other.id)
        found.append(TextLosses(*text, with_own, with_other, with_blind, other_id))
    return found
