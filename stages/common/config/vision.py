"""Section vision."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.common.config.base import Positive, Weight
from stages.common.config.loop import LoopParams


class VisionParams(LoopParams):
    source: Literal["train", "fetch"]
    patch_size: Positive
    hidden_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    intermediate_size: Positive
    projection_dim: Positive
    text_hidden_size: Positive
    text_num_hidden_layers: Positive
    scenes: Positive
    batch_size: Annotated[int, Field(ge=2)]
    region_weight: Weight
    recolour_share: Annotated[float, Field(ge=0.0, lt=1.0)]

    @model_validator(mode="after")
    def _heads_divide(self) -> VisionParams:
        if self.hidden_size % self.num_attention_heads or self.text_hidden_size % self.num_attention_heads:
            raise ValueError("num_attention_heads must divide hidden_size and text_hidden_size")
        return self
