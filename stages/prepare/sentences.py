"""Splits Chinese or English text into sentences."""

from __future__ import annotations

import re

# A sentence includes the closing quotation marks, brackets (。” 。）) and white space after its end mark. A full stop
# ends a sentence only before white space and not after another full stop: not in 3.5 or "Well... yes".
_END = re.compile(r"""(?: [。！？!?；\n]+ [”’"'」』）)\]】》]* | (?<!\.)\. [”’"')\]]* (?=\s) ) \s*""", re.VERBOSE)
_NUMBER = re.compile(r"\s*\d+\.\s*")  # "1. " of a numbered list is part of the sentence that follows


def split_sentences(text: str) -> list[str]:
    """The sentences of ``text``, which joined give ``text`` again. An empty text is one empty sentence."""
    sentences = []
    start = 0
    for end in _END.finditer(text):
        if not _NUMBER.fullmatch(text, start, end.end()):
            sentences.append(text[start : end.end()])
            start = end.end()
    if start < len(text) or not sentences:
        sentences.append(text[start:])
    return sentences
