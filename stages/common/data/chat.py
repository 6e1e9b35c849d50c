"""Dialogues as token ids: the only module that formats and tokenizes prompts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from stages.common.core.errors import InputError
from stages.common.core.paths import TOKENIZER

PAD, START, END, IMAGE = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"
SPECIAL_TOKENS = (PAD, START, END, IMAGE)
IGNORED = -100  # label of a position that is no target


def load_tokenizer() -> PreTrainedTokenizerFast:
    """Raises InputError if stage tokenizer has not run yet."""
    if not (TOKENIZER / "tokenizer.json").exists():
        raise InputError(f"{TOKENIZER} holds no tokenizer: run `dvc repro tokenizer` first")
    return PreTrainedTokenizerFast.from_pretrained(TOKENIZER, local_files_only=True)


def with_image(question: str) -> str:
    """The question after its picture, as in the built-in world."""
    return IMAGE + question


class ChatFormat(NamedTuple):
    """The strings that a chat template writes around the texts of a dialogue of user and assistant:
    ``first_user`` question ``assistant`` answer ``end``, then ``next_user`` question ``assistant`` answer ``end`` ...
    """

    first_user: str
    assistant: str
    end: str  # part of the targets, so that a model learns to end its answer
    next_user: str


def chat_format(tokenizer: PreTrainedTokenizerFast) -> ChatFormat:
    """The format of the tokenizer's chat template, found by rendering probe dialogues.

    Raises InputError if the template does more than write strings around the texts, or does not end turns with END.
    """

    def render(*texts: str, **options: bool) -> str:
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)

    # White space and both cases, because some templates trim or change texts.
    probes = [f"\n \ue000{number}aB\n " for number in range(4)]
    try:
        first_user, assistant = render(probes[0], add_generation_prompt=True).split(probes[0])
        found = ChatFormat(first_user, assistant, render(*probes[:2]).split(probes[1])[1], "")
        between = render(*probes[:3]).split(probes[1])[1].split(probes[2])[0]
        found = found._replace(next_user=between.removeprefix(found.end))
        regular = render(*probes) == dialogue_text(found, [(probes[0], probes[1]), (probes[2], probes[3])])[0]
    except (ValueError, IndexError):
        regular = False
    if not regular or not found.end.startswith(END) or END not in tokenizer.get_vocab():
        raise InputError(
            f"the chat template of {tokenizer.name_or_path} does more than write strings around the turns of a "
            f"dialogue, or does not end them with {END}; give a tokenizer with a plain ChatML template"
        )
    return found


def dialogue_text(form: ChatFormat, turns: Sequence[tuple[str, str]]) -> tuple[str, list[tuple[int, int]]]:
    """The text of (question, answer) turns in the chat template, and the targets in it as spans [start, end) of
    characters: the answers with their ends.
    """
    text = ""
    spans = []
    for number, (question, answer) in enumerate(turns):
        text += (form.next_user if number else form.first_user) + question + form.assistant
        spans.append((len(text), len(text) + len(answer) + len(form.end)))
        text += answer + form.end
    return text, spans


class Encoder:
    """Tokenizes dialogues; ids of short texts that repeat are cached."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        self.format = chat_format(tokenizer)
        self.end_id = self.token_id(END)

    def token_id(self, token: str) -> int:
        return self._tokenizer.convert_tokens_to_ids(token)

    def ids(self, text: str) -> list[int]:
        if text not in self._cache:
            if len(self._cache) > 50_000:  # to bound memory
                self._cache.clear()
            self._cache[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._cache[text]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The span [start, end) of characters in ``text`` of each of its tokens."""
        return self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).offsets

    def prompt(self, question: str) -> list[int]:
        """Ids of a first question and the header of its answer. ``question`` has `<image>` where a picture is."""
        return self.ids(self.format.first_user + question + self.format.assistant)

    def dialogue(self, turns: Sequence[tuple[str, Sequence[str]]]) -> tuple[list[int], list[int]]:
        """Ids and labels of (question, answer sentences) turns. Questions have `<image>` where a picture is.

        The dialogue is tokenized as one text; a token that begins before the answer is no target.
        """
        text, spans = dialogue_text(self.format, [(question, "".join(answer)) for question, answer in turns])
        encoding = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        ids, starts = encoding.ids, [start for start, _ in encoding.offsets]
        labels = [IGNORED] * len(ids)
        for span in spans:
            first, last = (bisect_left(starts, end) for end in span)
            labels[first:last] = ids[first:last]
        return ids, labels
