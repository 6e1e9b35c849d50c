"""Texts in Chinese or English, cut into sentences."""

from __future__ import annotations

import re

# Marks that end a sentence take along what closes it (。” 。）) and the white space behind. A full stop ends one only
# where white space follows and no other full stop stands before it: neither 3.5 nor "Well... yes" ends there.
_END = re.compile(r"""(?: [。！？!?；\n]+ [”’"'」』）)\]】》]* | (?<!\.)\. [”’"')\]]* (?=\s) ) \s*""", re.VERBOSE)
_NUMBER = re.compile(r"\s*\d+\.\s*")  # "1. ", the head of a list's entry, belongs to what follows


def split_sentences(text: str) -> list[str]:
    """The sentences of ``text``: joined, they are ``text`` itself. An empty text is one empty sentence."""
    sentences = []
    start = 0
    for end in _END.finditer(text):
        if not _NUMBER.fullmatch(text, start, end.end()):
            sentences.append(text[start : end.end()])
            start = end.end()
    if start < len(text) or not sentences:
        sentences.append(text[start:])
    return sentences
