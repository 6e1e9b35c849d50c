"""Section tokenizer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.common.config.base import Positive, Section


class TokenizerParams(Section):
    source: Literal["train", "fetch"]
    vocab_size: Annotated[int, Field(ge=300)]
    max_token_length: Positive
    scenes: Positive
