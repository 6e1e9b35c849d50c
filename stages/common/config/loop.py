"""Parameters of training stages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.common.config.base import Positive, Rate, Section, Share, Weight


class LoopParams(Section):
    """Parameters of every training stage; names are those of transformers' TrainingArguments."""

    epochs: Positive
    learning_rate: Rate
    warmup_ratio: Share
    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup", "cosine_with_min_lr", "warmup_stable_decay"]
    weight_decay: Weight
    adam_beta2: Annotated[float, Field(gt=0.0, lt=1.0)]


class TokenLoopParams(LoopParams):
    """Parameters of training on texts with pictures. ``batch_tokens`` or ``batch_size`` sets the size of a step."""

    shuffle: bool
    batch_tokens: Positive | None
    batch_size: Positive | None
    save_strategy: Literal["end", "epoch"]

    @model_validator(mode="after")
    def _one_size_of_batch(self) -> TokenLoopParams:
        if (self.batch_tokens is None) == (self.batch_size is None):
            raise ValueError("batch_size: give either batch_tokens or batch_size, and null for the other")
        return self
