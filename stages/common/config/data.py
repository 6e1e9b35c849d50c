"""Section data: the built-in world, or files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.common.config.base import Odds, Positive, Rate, Section, Share


class DataParams(Section):
    source: Literal["world", "minimind", "jsonl", "parquet"]
    image_size: Positive
    resize: bool
    max_rows: Positive | None
    max_pixels: Positive
    max_answer_chars: Positive
    max_bad_fraction: Share
    train_scenes: Positive
    validation_scenes: Positive
    test_scenes: Positive
    shard_scenes: Positive
    group_weights: Odds = Field(min_length=1, max_length=5)
    count_weights: Odds = Field(min_length=3, max_length=3)
    relation_probability: Share
    home_weight: Rate
    held_out_colours: Annotated[int, Field(ge=0, le=4)]
