"""Section fetch: where files come from."""

from __future__ import annotations

from typing import Literal

from stages.common.config.base import Name, Section


class FetchSource(Section):
    """``repo`` is a folder on this machine or, if there is none of that name, an id on the Hugging Face Hub."""

    repo: str
    kind: Literal["model", "dataset"]
    revision: str
    files: list[str]


class FetchParams(Section):
    vision: FetchSource
    tokenizer: FetchSource
    language: FetchSource
    pretrain_data: FetchSource
    pretrain_images: FetchSource
    sft_data: FetchSource
    sft_images: FetchSource
    photographs: FetchSource
    models: dict[Name, FetchSource]
