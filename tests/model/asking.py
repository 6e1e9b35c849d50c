"""A question to a model, as users of transformers ask it."""

from __future__ import annotations

from typing import Any

from transformers import BatchFeature, LlavaProcessor


def asked(processor: LlavaProcessor, content: list[dict[str, Any]]) -> BatchFeature:
    """What the model takes: a user's turn of this content, with the header of the answer after it."""
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
