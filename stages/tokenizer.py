"""Stage tokenizer: a BPE tokenizer with a chat template, trained on the prepared texts, or fetched.

in: data/prepared, data/fetched; params tokenizer. out: data/tokenizer
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from model.vlm.tokenization import turns_template, with_image_token
from stages.common.config.params import load_params
from stages.common.config.tokenizer import TokenizerParams
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory
from stages.common.core.paths import TOKENIZER
from stages.common.core.stage import run_stage
from stages.common.data.chat import END, PAD, SPECIAL_TOKENS, START
from stages.common.data.fetched import fetched_folder
from stages.common.data.shards import read_rows

SEPARATE = r"[\s，。、？！：；的在是和吗]"  # particles and punctuation, never part of a longer token
ROLES = ["user", "assistant"]  # in every prompt, and longer than max_token_length
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def corpus(scenes: int) -> Iterator[str]:
    """Questions and answers of the first train scenes, with the names of their roles."""
    for row in read_rows("train", ["texts"], scenes):
        for text in row["texts"]:
            yield f"user\n{text['question']}"
            yield "assistant\n" + "".join(text["answer"])


def train_tokenizer(texts: Iterator[str], params: TokenizerParams) -> PreTrainedTokenizerFast:
    """A BPE tokenizer over characters, with a token per byte for characters that are not in ``texts``.

    The texts repeat a few sentence forms, and BPE would learn whole sentences as tokens. To prevent this, particles and
    punctuation are separate tokens, and no token is longer than ``max_token_length`` characters. Raises InputError if
    ``vocab_size`` is less than the number of characters, bytes and special tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SEPARATE), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=params.vocab_size - len(BYTES) - len(ROLES),
        special_tokens=list(SPECIAL_TOKENS),
        max_token_length=params.max_token_length,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer = with_byte_fallback(tokenizer)
    tokenizer.add_tokens(ROLES)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        unk_token=PAD,
        extra_special_tokens={"image_token": SPECIAL_TOKENS[3]},
        padding_side="left",
    )
    if len(fast) > params.vocab_size:
        raise InputError(
            f"params.yaml: tokenizer.vocab_size: the corpus needs {len(fast)} tokens for its characters alone, "
            f"not {params.vocab_size}; raise it"
        )
    fast.chat_template = turns_template(separated=True)
    return fast


def with_byte_fallback(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with a token for each byte, so that it can encode and decode any text."""
    description = json.loads(tokenizer.to_str())
    vocabulary = description["model"]["vocab"]
    for byte in BYTES:
        vocabulary[byte] = len(vocabulary)
    description["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def fetched_tokenizer() -> PreTrainedTokenizerFast:
    """The fetched tokenizer with an image token. Raises InputError if there is none, or it cannot have one."""
    try:
        return with_image_token(fetched_folder("tokenizer", "tokenizer"))
    except ValueError as error:
        raise InputError(f"fetch.tokenizer: {error}") from None


def main() -> None:
    params = load_params()
    if params.tokenizer.source == "fetch":
        tokenizer = fetched_tokenizer()
    else:
        tokenizer = train_tokenizer(corpus(params.tokenizer.scenes), params.tokenizer)
    with atomic_directory(TOKENIZER) as folder:
        tokenizer.save_pretrained(folder)
    print(f"tokenizer of {len(tokenizer)} tokens, source {params.tokenizer.source}")


if __name__ == "__main__":
    run_stage(main)
