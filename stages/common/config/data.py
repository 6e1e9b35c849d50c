"""Section data: the built-in world, or files."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from stages.common.config.base import Odds, Positive, Rate, Section, Share, Weight


def _ascending(sizes: list[float]) -> list[float]:
    if sizes[0] > sizes[1]:
        raise ValueError("the first size is larger than the second; give the smallest and then the largest")
    return sizes


def _sizes(largest: float) -> Any:
    """The type of a pair of sizes, fractions of the picture's side."""
    return Annotated[
        list[Annotated[float, Field(gt=0.0, le=largest)]], Field(min_length=2, max_length=2), AfterValidator(_ascending)
    ]


NearSizes = _sizes(0.36)
FarSizes = _sizes(0.3)  # three in a row fit into the picture


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
    kinds: Annotated[int, Field(ge=20)]
    zipf_exponent: Weight
    near_weights: Odds = Field(min_length=1, max_length=4)
    far_weights: Odds = Field(min_length=1, max_length=5)
    max_near: Annotated[int, Field(ge=4)]
    max_far: Annotated[int, Field(ge=4)]
    near_sizes: NearSizes
    far_sizes: FarSizes
    count_weights: Odds = Field(min_length=3, max_length=3)
    relation_probability: Share
    home_weight: Rate
    unsupported: Share
    popular_share: Annotated[float, Field(gt=0.0, le=1.0)]
    held_out_colours: Annotated[int, Field(ge=0, le=4)]
