"""Section language."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from stages.common.config.base import Positive, Rate, Share, Weight
from stages.common.config.loop import LoopParams


class LanguageParams(LoopParams):
    source: Literal["train", "fetch", "random"]
    hidden_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    num_key_value_heads: Positive
    intermediate_size: Positive
    max_position_embeddings: Positive
    rope_theta: Rate
    rms_norm_eps: Rate
    scenes: Positive
    questions: Positive
    question_share: Share
    description_share: Share
    grounding: Literal["blind", "context", "slots"]
    patch_noise: Share
    noise: Weight
    yes_no_weight: Weight
    batch_tokens: Positive

    @model_validator(mode="after")
    def _consistent(self) -> LanguageParams:
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                "num_attention_heads must divide hidden_size, and num_key_value_heads must divide num_attention_heads"
            )
        if self.question_share + self.description_share > 1:
            raise ValueError("question_share + description_share must be at most 1: a scene has one of the two")
        if self.hidden_size // self.num_attention_heads % 2:
            raise ValueError("hidden_size / num_attention_heads must be even: rotary position encoding rotates pairs")
        return self
