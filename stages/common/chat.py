"""Dialogues as token ids: the one place where a prompt is put into words and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from stages.common.errors import InputError
from stages.common.paths import TOKENIZER

PAD, START, END, IMAGE = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"
SPECIAL_TOKENS = (PAD, START, END, IMAGE)
IGNORED = -100  # label of a position that is no target

# Jinja's own whitespace must not leak into the prompt, hence the dashes.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{{- '<image>' if part['type'] == 'image' else part['text'] -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def load_tokenizer(folder: Path = TOKENIZER) -> PreTrainedTokenizerFast:
    """Raises InputError where the stage tokenizer has not run yet."""
    if not (folder / "tokenizer.json").exists():
        raise InputError(f"{folder} holds no tokenizer: run `dvc repro tokenizer` first")
    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def prompt_text(question: str, image: bool) -> str:
    """What stands before an answer; the same string that the chat template makes."""
    return f"{START}user\n{IMAGE if image else ''}{question}{END}\n{START}assistant\n"


class Encoder:
    """Turns dialogues into ids; prompts repeat, so each is tokenized once."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        self.end_id = self.token_id(END)

    def token_id(self, token: str) -> int:
        return self._tokenizer.convert_tokens_to_ids(token)

    def ids(self, text: str) -> list[int]:
        if text not in self._cache:
            if len(self._cache) > 50_000:  # bounded memory on any amount of text
                self._cache.clear()
            self._cache[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._cache[text]

    def dialogue(self, turns: Sequence[tuple[str, Sequence[str]]], image: bool) -> tuple[list[int], list[int]]:
        """Ids and labels of (question, answer sentences) turns; the picture stands before the first question.

        Targets are the answers and the end-of-turn marks after them.
        """
        ids: list[int] = []
        labels: list[int] = []
        for number, (question, sentences) in enumerate(turns):
            prompt = self.ids(prompt_text(question, image and number == 0))
            answer = [token for sentence in sentences for token in self.ids(sentence)] + [self.end_id]
            gap = [] if number == 0 else self.ids("\n")
            ids += [*gap, *prompt, *answer]
            labels += [IGNORED] * (len(gap) + len(prompt)) + answer
        return ids, labels
