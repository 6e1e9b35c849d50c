"""One raw row becomes one row of a shard, or a reason why not."""

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
_MAX_STORED = 1 << 25  # bytes of pictures in a row: 32 such rows are still one column of Parquet
_IMAGE = "<image>"
_SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_ROLES = ("user", "assistant")

Turn = tuple[str, str]


class RawRow(NamedTuple):
    """What a file says. ``load`` reads picture number i, whose name may be unknown ("")."""

    conversations: Any
    names: list[str]
    load: Callable[[int], bytes]


class Rules(NamedTuple):
    seed: int
    max_answer_chars: int
    max_pixels: int
    image_size: int
    resize: bool

    @classmethod
    def of(cls, params: Params) -> Rules:
        data = params.data
        return cls(params.seed, data.max_answer_chars, data.max_pixels, data.image_size, data.resize)


class Made(NamedTuple):
    row: dict[str, Any]
    hash_fractions: list[float]  # a number in [0, 1) for each picture: the same for the same bytes


def make_row(identity: str, raw: RawRow, rules: Rules) -> Made:
    """The row of a shard that ``raw`` says. Raises BadRow."""
    turns = dialogue(raw.conversations, rules.max_answer_chars)
    wanted = sum(question.count(_IMAGE) for question, _ in turns)
    names = raw.names
    if not wanted and len(names) == 1 and is_placeholder(raw.load(0)):
        names = []
    if wanted != len(names):
        raise BadRow("number of <image> marks differs from the number of images")
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
            raise BadRow(f"pictures of more than {_MAX_STORED} bytes", name)
        images.append({"bytes": kept, "path": name or f"{identity}-{number}"})
        hash_fractions.append(hash_fraction(rules.seed, data))
    texts = [
        {"task": "turn", "question": question, "answer": split_sentences(answer), "kind": "", "expected": ""}
        for question, answer in turns
    ]
    return Made({"id": identity, "images": images, "scene": "", "texts": texts}, hash_fractions)


def hash_fraction(seed: int, data: bytes) -> float:
    """A number in [0, 1) that depends on ``data`` alone, and on ``seed``."""
    digest = blake2b(data, digest_size=8, key=str(seed).encode()).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def dialogue(conversations: Any, max_answer_chars: int) -> list[Turn]:
    """(question, answer) pairs. Raises BadRow for what is no dialogue, or would forge another."""
    if not isinstance(conversations, list):
        raise BadRow("conversations missing or not a list")
    texts = []
    for number, turn in enumerate(conversations):
        if not isinstance(turn, dict):
            raise BadRow("turn that is not an object")
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
        need_utf8(text)
    answers = texts[1::2]
    if any(_IMAGE in answer for answer in answers):
        raise BadRow("<image> in an assistant turn")
    if any(len(answer) > max_answer_chars for answer in answers):
        raise BadRow(f"answer of more than {max_answer_chars} characters")
    return list(zip(texts[0::2], answers, strict=True))


def raw_row_of_line(line: bytes, load: Callable[[str], bytes]) -> RawRow:
    """A row of a jsonl file; ``load`` reads a picture by its name. Raises BadRow."""
    if len(line) > MAX_LINE:
        raise BadRow(f"line of more than {MAX_LINE} bytes")
    row = from_json(_decoded(line))
    if not isinstance(row, dict):
        raise BadRow("line that is not a JSON object")
    image = row.get("image")
    if image is not None and not isinstance(image, str):
        raise BadRow("image is not a string")
    need_utf8(image or "")
    names = image_names(image)
    return RawRow(row.get("conversations"), names, lambda number: load(names[number]))


def image_names(image: str | None) -> list[str]:
    return [name for part in (image or "").split(",") if (name := part.strip())]


def from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadRow("broken JSON") from None


def need_utf8(text: str) -> None:
    """JSON can say half a surrogate pair, and no file can hold it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow("broken UTF-8") from None


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRow("broken UTF-8") from None
