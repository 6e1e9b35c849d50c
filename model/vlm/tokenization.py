"""Adds an image token, and a chat template with images, to a tokenizer that has none.

MiniMind's tokenizer has no image token, and its vocabulary must not grow, because the published embeddings have exactly
as many rows. It is a byte-level BPE tokenizer, which has an entry for each byte; the byte 0xFF occurs in no UTF-8 text
(RFC 3629), so its entry can be used as the image token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from model.errors import ConversionError, first_line

IMAGE = "<image>"
UNUSED_BYTE = "ÿ"  # how byte-level BPE writes 0xFF
START, END = "<|im_start|>", "<|im_end|>"

# The dashes keep the template's own white space out of the prompt.
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
    """A ChatML template in transformers' image-text form. A line break separates turns (``separated``) or ends each."""
    before, after, last = ("{{- '' if loop.first else '\\n' -}}\n", "", "\\n") if separated else ("", "\\n", "")
    return _TURNS.replace("BEFORE", before).replace("AFTER", after).replace("LAST", last)


def with_image_token(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in ``folder`` with a special token ``<image>`` and a chat template that places images.

    The vocabulary keeps its size, and texts without images their ids. White space right before an image can be split
    differently than before MiniMind-V's placeholder, a run of ``@``: byte-level BPE splits off the last of several
    white-space characters before an ``@``, but not before a special token. Raises ConversionError if the folder holds
    no tokenizer, or one without an entry to use.
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
        padding_side="left",  # generation continues a batch of prompts at its right end
    )
    tokenizer.chat_template = own.chat_template if _places_images(own) else chat_template(own)
    return tokenizer


def chat_template(tokenizer: PreTrainedTokenizerFast) -> str:
    """A template in transformers' image-text form that renders texts as the tokenizer's own, text-only one.

    Content is a string or a list of ``{"type": "image"}`` and ``{"type": "text", "text": ...}``; nothing is written
    around an image. If the tokenizer's template adds a default system message, so does this one. Raises
    ConversionError if the two differ on a dialogue that ends with an answer, or with a generation prompt.
    """
    turns = [{"role": "user", "content": "Q 1"}, {"role": "assistant", "content": "A 1"}]
    more = [*turns, {"role": "user", "content": "Q 2"}, {"role": "assistant", "content": "A 2"}]
    system = {"role": "system", "content": "S"}
    default = _render(tokenizer, turns).removesuffix(f"{START}user\nQ 1{END}\n{START}assistant\nA 1{END}\n")
    # A JSON string literal is also one of Jinja's.
    start = _DEFAULT_SYSTEM.replace("DEFAULT", json.dumps(default, ensure_ascii=False)) if default else ""
    template = start + turns_template(separated=False)
    probes = [(turns, False), (more, False), ([system, *more], False), (turns[:1], True), (more[:3], True)]
    for dialogue, header in probes:
        expected = _render(tokenizer, dialogue, add_generation_prompt=header)
        if _render(tokenizer, dialogue, chat_template=template, add_generation_prompt=header) != expected:
            raise ConversionError(
                f"the tokenizer's chat template is not of the form {START}role, content, {END} with the answer's "
                f"header after a question, so images cannot be added to it"
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
    """The content of tokenizer.json with the image token as its entry for the byte 0xFF. Raises ConversionError."""
    model = description["model"]
    vocabulary = model.get("vocab")
    if model.get("type") != "BPE" or not _has_pre_tokenizer(description, "ByteLevel") or UNUSED_BYTE not in vocabulary:
        raise ConversionError(
            f"the tokenizer has no token {IMAGE}, and it is not a byte-level BPE one with an entry for the byte 0xFF, "
            f"which could be used for it"
        )
    longer = [token for token in vocabulary if UNUSED_BYTE in token and token != UNUSED_BYTE]
    merges = [pair for pair in model["merges"] if UNUSED_BYTE in "".join(pair)]
    if longer or merges:
        raise ConversionError(
            f"the tokenizer has no token {IMAGE}, and the entry of byte 0xFF cannot be used for it: others contain it"
        )
    index = vocabulary[UNUSED_BYTE]
    model["vocab"] = {IMAGE if token == UNUSED_BYTE else token: number for token, number in vocabulary.items()}
    added = {"id": index, "content": IMAGE, "single_word": False, "lstrip": False, "rstrip": False}
    tokens = [*description["added_tokens"], {**added, "normalized": False, "special": True}]
    description["added_tokens"] = sorted(tokens, key=lambda token: token["id"])
    return description


def _has_pre_tokenizer(description: dict[str, Any], kind: str) -> bool:
    """Whether the pre-tokenizer, or one in its sequence, has this type."""
    stage = description.get("pre_tokenizer") or {}
    return any(part.get("type") == kind for part in [stage, *stage.get("pretokenizers", [])])


def _places_images(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the chat template already takes content in parts and writes images where they are in the content."""
    parts = [{"type": "text", "text": "Q"}, {"type": "image"}, {"type": "text", "text": "R"}]
    try:
        return f"Q{IMAGE}R" in _render(tokenizer, [{"role": "user", "content": parts}])
    except ConversionError:
        return False


def _render(tokenizer: PreTrainedTokenizerFast, dialogue: list[dict[str, Any]], **kwargs: Any) -> str:
    try:
        return tokenizer.apply_chat_template(dialogue, tokenize=False, **kwargs)
    except Exception as error:  # Jinja's errors, those that templates raise, or no template
        raise ConversionError(f"the tokenizer's chat template fails: {first_line(error)}") from error
