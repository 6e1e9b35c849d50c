"""The tokenizer: one that has a token for a picture, and a chat template that knows where pictures stand.

MiniMind's tokenizer has no image token, and its vocabulary must not grow, for the published embeddings have exactly
as many rows. Its alphabet is that of byte-level BPE, one entry per byte, and the byte 0xFF occurs in no UTF-8 text
(RFC 3629): its entry is free to stand for a picture.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from model.errors import ConversionError, first_line

IMAGE = "<image>"
FREE_BYTE = "ÿ"  # how byte-level BPE writes 0xFF
START, END = "<|im_start|>", "<|im_end|>"

# Jinja's own white space must not leak into the prompt, hence the dashes.
_DEFAULT_SYSTEM = """\
{%- if messages[0]['role'] != 'system' -%}
{{- DEFAULT -}}
{%- endif -%}
"""
_TURNS = """\
{%- for message in messages -%}
BEFORE{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{{- '<image>' if part['type'] == 'image' else part['text'] -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>AFTER' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- 'LAST<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def turns_template(separated: bool) -> str:
    """ChatML in transformers' image-text form. Line breaks stand between turns (``separated``) or end each of them."""
    before, after, last = ("{{- '' if loop.first else '\\n' -}}\n", "", "\\n") if separated else ("", "\\n", "")
    return _TURNS.replace("BEFORE", before).replace("AFTER", after).replace("LAST", last)


def with_image_token(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in ``folder`` with a special token ``<image>`` and a chat template that knows pictures.

    The vocabulary keeps its size and every text its ids. Only white space right before a picture can be cut
    differently from MiniMind-V's own placeholder, a run of ``@``: byte-level BPE splits off the last one of several
    white-space characters before an ``@``, but not before a special token. Raises ConversionError where the folder
    holds no such tokenizer.
    """
    own = _load(folder)
    if IMAGE in own.get_vocab():
        backend = own.backend_tokenizer
        backend.add_special_tokens([AddedToken(IMAGE, normalized=False, special=True)])
    else:
        backend = Tokenizer.from_str(json.dumps(_free_byte_as_image(json.loads(own.backend_tokenizer.to_str()))))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=own.bos_token,
        eos_token=own.eos_token,
        pad_token=own.pad_token,
        unk_token=own.unk_token,
        extra_special_tokens={"image_token": IMAGE},
        model_max_length=own.model_max_length,
        clean_up_tokenization_spaces=False,
        padding_side="left",  # a batch of prompts is continued at its right end
    )
    tokenizer.chat_template = own.chat_template if _places_images(own) else chat_template(own)
    return tokenizer


def chat_template(tokenizer: PreTrainedTokenizerFast) -> str:
    """A template in transformers' image-text form that says the same as the tokenizer's own, text-only one.

    Content is a string or a list of ``{"type": "image"}`` and ``{"type": "text", "text": ...}``; nothing is put
    around a picture. Where the own template starts a dialogue without a system message with one of its choice, so
    does this. Raises ConversionError where the two differ on a dialogue that ends with an answer, or on a question
    with the header of the answer after it.
    """
    turns = [{"role": "user", "content": "Q 1"}, {"role": "assistant", "content": "A 1"}]
    more = [*turns, {"role": "user", "content": "Q 2"}, {"role": "assistant", "content": "A 2"}]
    system = {"role": "system", "content": "S"}
    default = _render(tokenizer, turns).removesuffix(f"{START}user\nQ 1{END}\n{START}assistant\nA 1{END}\n")
    # JSON's string literals are Jinja's too.
    start = _DEFAULT_SYSTEM.replace("DEFAULT", json.dumps(default, ensure_ascii=False)) if default else ""
    template = start + turns_template(separated=False)
    probes = [(turns, False), (more, False), ([system, *more], False), (turns[:1], True), (more[:3], True)]
    for dialogue, header in probes:
        expected = _render(tokenizer, dialogue, add_generation_prompt=header)
        if _render(tokenizer, dialogue, chat_template=template, add_generation_prompt=header) != expected:
            raise ConversionError(
                f"the tokenizer's chat template is not of the form {START}role, content, {END} with the answer's "
                f"header after a question, so it cannot be rewritten for pictures"
            )
    return template


def _load(folder: Path) -> PreTrainedTokenizerFast:
    if not (folder / "tokenizer.json").is_file():
        raise ConversionError(f"{folder} holds no tokenizer: there is no tokenizer.json in it")
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the libraries raise a bare Exception for a file that they cannot parse
        raise ConversionError(f"{folder} holds no tokenizer that can be read: {first_line(error)}") from error


def _free_byte_as_image(description: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json whose entry for the byte 0xFF is the image token. Raises ConversionError."""
    model = description["model"]
    vocabulary = model.get("vocab")
    if model.get("type") != "BPE" or not _mentions(description, "ByteLevel") or FREE_BYTE not in vocabulary:
        raise ConversionError(
            f"the tokenizer has no token {IMAGE}, and is not a byte-level BPE one that has an entry free for it"
        )
    longer = [token for token in vocabulary if FREE_BYTE in token and token != FREE_BYTE]
    merges = [pair for pair in model["merges"] if FREE_BYTE in "".join(pair)]
    if longer or merges:
        raise ConversionError(
            f"the tokenizer has no token {IMAGE}, and the byte 0xFF, whose entry could stand for it, is part of others"
        )
    index = vocabulary[FREE_BYTE]
    model["vocab"] = {IMAGE if token == FREE_BYTE else token: number for token, number in vocabulary.items()}
    added = {"id": index, "content": IMAGE, "single_word": False, "lstrip": False, "rstrip": False}
    tokens = [*description["added_tokens"], {**added, "normalized": False, "special": True}]
    description["added_tokens"] = sorted(tokens, key=lambda token: token["id"])
    return description


def _mentions(description: dict[str, Any], kind: str) -> bool:
    """Whether the pre-tokenizer, or one in its sequence, is of this kind."""
    stage = description.get("pre_tokenizer") or {}
    return any(part.get("type") == kind for part in [stage, *stage.get("pretokenizers", [])])


def _places_images(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the chat template already takes content in parts and puts a picture exactly where it stands."""
    parts = [{"type": "text", "text": "Q"}, {"type": "image"}, {"type": "text", "text": "R"}]
    try:
        return f"Q{IMAGE}R" in _render(tokenizer, [{"role": "user", "content": parts}])
    except ConversionError:
        return False


def _render(tokenizer: PreTrainedTokenizerFast, dialogue: list[dict[str, Any]], **kwargs: Any) -> str:
    try:
        return tokenizer.apply_chat_template(dialogue, tokenize=False, **kwargs)
    except Exception as error:  # Jinja's errors, a template's own, or none set at all
        raise ConversionError(f"the tokenizer's chat template fails: {first_line(error)}") from error
