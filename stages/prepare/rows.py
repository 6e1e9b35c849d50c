"""Validates one row of a data file and converts it to a row of a shard."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NamedTuple

from stages.common.config.params import Params
from stages.prepare.picture import is_placeholder, stored_picture
from stages.prepare.quarantine import BadRow
from stages.prepare.sentences import split_sentences

MAX_LINE = 1 << 24  # bytes
_MAX_STORED = 1 << 25  # bytes of pictures in a row; a row group of 32 such rows still fits a Parquet column
_IMAGE = "<image>"
_SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_ROLES = ("user", "assistant")

Turn = tuple[str, str]  # question, answer


class RawRow(NamedTuple):
    """A row as read from the file, not validated."""

    conversations: Any
    names: list[str]  # of its pictures; "" where a name is unknown
    load: Callable[[int], bytes]  # reads the picture with this index


class Rules(NamedTuple):
    """The parameters for validating and converting rows."""

    seed: int
    max_answer_chars: int
    max_pixels: int
    image_size: int
    resize: bool

    @classmethod
    def of(cls, params: Params) -> Rules:
        data = params.data
        return cls(params.seed, data.max_answer_chars, data.max_pixels, data.image_size, data.resize)


class ShardRow(NamedTuple):
    row: dict[str, Any]  # see stages/common/data/shards.py
    hash_fractions: list[float]  # a number in [0, 1) for each picture; equal bytes give equal numbers


def make_row(identity: str, raw: RawRow, rules: Rules) -> ShardRow:
    """Validate ``raw`` and convert it to a row of a shard with the id ``identity``. Raises BadRow."""
    turns = dialogue(raw.conversations, rules.max_answer_chars)
    image_tokens = sum(question.count(_IMAGE) for question, _ in turns)
    names = raw.names
    if not image_tokens and len(names) == 1 and is_placeholder(raw.load(0)):
        names = []
    if image_tokens != len(names):
        raise BadRow("number of <image> tokens differs from the number of images")
    images, hash_fractions = [], []
    stored = 0
    for number, name in enumerate(names):
        data = raw.load(number)
        try:
            kept = stored_picture(data, rules.max_pixels, rules.image_size, rules.resize)
        except BadRow as bad:
            raise BadRow(bad.reason, name) from None
        stored += len(kept)
        if stored > _MAX_STORED:
            raise BadRow(f"pictures of more than {_MAX_STORED} bytes in one row", name)
        images.append({"bytes": kept, "path": name or f"{identity}-{number}"})
        hash_fractions.append(hash_fraction(rules.seed, data))
    texts = [
        {"task": "turn", "question": question, "answer": split_sentences(answer), "kind": "", "expected": ""}
        for question, answer in turns
    ]
    return ShardRow({"id": identity, "images": images, "scene": "", "texts": texts}, hash_fractions)


def hash_fraction(seed: int, data: bytes) -> float:
    """A number in [0, 1) that depends only on ``data`` and ``seed``."""
    digest = blake2b(data, digest_size=8, key=str(seed).encode()).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def dialogue(conversations: Any, max_answer_chars: int) -> list[Turn]:
    """The (question, answer) pairs of a dialogue.

    Raises BadRow if it is not a dialogue, or has special tokens in its texts: they would start or end a turn.
    """
    if not isinstance(conversations, list):
        raise BadRow("conversations missing or not a list")
    texts = []
    for number, turn in enumerate(conversations):
        if not isinstance(turn, dict):
            raise BadRow("turn is not an object")
        if turn.get("role") is not None and turn["role"] != _ROLES[number % 2]:
            raise BadRow("roles out of order: they must be user, assistant, user, ...")
        texts.append(turn.get("content"))
    if len(texts) < 2:
        raise BadRow("no assistant turn")
    if len(texts) % 2:
        raise BadRow("last user turn without an answer")
    for text in texts:
        if not isinstance(text, str):
            raise BadRow("content missing or not a string")
        if any(token in text for token in _SPECIAL):
            raise BadRow("special token in a text")
        check_utf8(text)
    answers = texts[1::2]
    if any(_IMAGE in answer for answer in answers):
        raise BadRow("<image> in an assistant turn")
    if any(len(answer) > max_answer_chars for answer in answers):
        raise BadRow(f"answer longer than {max_answer_chars} characters")
    return list(zip(texts[0::2], answers, strict=True))


def raw_row_of_line(line: bytes, load: Callable[[str], bytes]) -> RawRow:
    """A row of a JSON lines file; ``load`` reads a picture by its name. Raises BadRow."""
    if len(line) > MAX_LINE:
        raise BadRow(f"line longer than {MAX_LINE} bytes")
    row = parse_json(_decode(line))
    if not isinstance(row, dict):
        raise BadRow("line is not a JSON object")
    image = row.get("image")
    if image is not None and not isinstance(image, str):
        raise BadRow("image is not a string")
    check_utf8(image or "")
    names = image_names(image)
    return RawRow(row.get("conversations"), names, lambda number: load(names[number]))


def image_names(image: str | None) -> list[str]:
    """The names in a comma-separated list."""
    return [name for part in (image or "").split(",") if (name := part.strip())]


def parse_json(text: str) -> Any:
    """Raises BadRow for text that is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadRow("broken JSON") from None


def check_utf8(text: str) -> None:
    """Raises BadRow for half a surrogate pair: JSON can escape one, but UTF-8 cannot encode it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow("broken UTF-8") from None


def _decode(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRow("broken UTF-8") from None
