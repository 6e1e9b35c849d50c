"""Dialogues as token ids: the one place where a prompt is put into words and tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from stages.common.core.errors import InputError
from stages.common.core.paths import TOKENIZER

PAD, START, END, IMAGE = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"
SPECIAL_TOKENS = (PAD, START, END, IMAGE)
IGNORED = -100  # label of a position that is no target


def load_tokenizer(folder: Path = TOKENIZER) -> PreTrainedTokenizerFast:
    """Raises InputError where the stage tokenizer has not run yet."""
    if not (folder / "tokenizer.json").exists():
        raise InputError(f"{folder} holds no tokenizer: run `dvc repro tokenizer` first")
    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def with_images(question: str, pictures: int = 1) -> str:
    """The question with its pictures in front of it, as the built-in world asks."""
    return IMAGE * pictures + question


class Frame(NamedTuple):
    """What a chat template writes around the texts: ``start`` question ``answer`` text ``end`` ``again`` question ...

    ``end`` belongs to the turn that it closes, so a model learns to write it.
    """

    start: str
    answer: str
    end: str
    again: str


def frame_of(tokenizer: PreTrainedTokenizerFast) -> Frame:
    """Reads the frame off a rendered dialogue.

    Raises InputError for a template that does more than put strings around the texts, or ends a turn otherwise.
    """

    def render(*texts: str, **options: bool) -> str:
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)

    # White space and both cases, because templates trim texts, too.
    marks = [f"\n \ue000{number}aB\n " for number in range(4)]
    try:
        start, rest = render(marks[0], add_generation_prompt=True).split(marks[0])
        frame = Frame(start, rest, render(*marks[:2]).split(marks[1])[1], "")
        frame = frame._replace(again=render(*marks[:3]).split(marks[1])[1].split(marks[2])[0].removeprefix(frame.end))
        regular = render(*marks) == dialogue_text(frame, [(marks[0], marks[1]), (marks[2], marks[3])])[0]
    except (ValueError, IndexError):
        regular = False
    if not regular or not frame.end.startswith(END) or END not in tokenizer.get_vocab():
        raise InputError(
            f"the chat template of {tokenizer.name_or_path} does more than put marks around the turns of a dialogue, "
            f"or ends them otherwise than with {END}; give a tokenizer with a plain ChatML template"
        )
    return frame


def dialogue_text(frame: Frame, turns: Sequence[tuple[str, str]]) -> tuple[str, list[tuple[int, int]]]:
    """What the chat template makes of (question, answer) turns, and where in it the targets lie: spans of characters.

    Targets are the answers and what closes them.
    """
    text = ""
    spans = []
    for number, (question, answer) in enumerate(turns):
        text += (frame.again if number else frame.start) + question + frame.answer
        spans.append((len(text), len(text) + len(answer) + len(frame.end)))
        text += answer + frame.end
    return text, spans


class Encoder:
    """Turns dialogues into ids; what is short and repeats is tokenized once."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        self.frame = frame_of(tokenizer)
        self.end_id = self.token_id(END)

    def token_id(self, token: str) -> int:
        return self._tokenizer.convert_tokens_to_ids(token)

    def ids(self, text: str) -> list[int]:
        if text not in self._cache:
            if len(self._cache) > 50_000:  # bounded memory on any amount of text
                self._cache.clear()
            self._cache[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._cache[text]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where in ``text`` the characters of each of its tokens stand."""
        return self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).offsets

    def prompt(self, question: str) -> list[int]:
        """What stands before the answer to a first question. ``question`` has `<image>` where a picture stands."""
        return self.ids(self.frame.start + question + self.frame.answer)

    def dialogue(self, turns: Sequence[tuple[str, Sequence[str]]]) -> tuple[list[int], list[int]]:
        """Ids and labels of (question, answer sentences) turns. Questions have `<image>` where a picture stands.

        The dialogue is tokenized as one text; a token that an answer shares with what stands before it is no target.
        """
        text, spans = dialogue_text(self.frame, [(question, "".join(answer)) for question, answer in turns])
        encoding = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        ids, starts = encoding.ids, [start for start, _ in encoding.offsets]
        labels = [IGNORED] * len(ids)
        for span in spans:
            first, last = (bisect_left(starts, end) for end in span)
            labels[first:last] = ids[first:last]
        return ids, labels
