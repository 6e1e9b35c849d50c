"""Figures of the texts that the notes published of their models on eight photographs.

Scored by ``python -m stages.evaluate.score`` with the manifest data/eval/photographs.yaml, as our own answers about
photographs are. LDP: after 1, 2 and 3 epochs.
"""

from __future__ import annotations

from typing import NamedTuple


class NotesText(NamedTuple):
    """``chair_i``, ``recall``: percent. ``unsupported``: mentions a text. ``length``: characters."""

    model: str
    chair_i: str
    unsupported: str
    recall: str
    length: str


NOTES_TEXTS = (
    NotesText("pretrained", "26.9", "0.9", "31", "18"),
    NotesText("SFT, 1 epoch", "34.0", "2.2", "25", "71"),
    NotesText("SFT, 2 epochs", "34.7", "5.2", "47", "129"),
    NotesText("the author's published model", "15.3", "2.1", "53", "144"),
    NotesText("LDP projector", "21 to 23", "0.6", "22 to 31", "15 to 17"),
)
