"""Section evaluate."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.common.config.base import Positive, Section


class EvaluateParams(Section):
    scenes: Positive
    far_first_scenes: Positive
    reference_scenes: Positive
    max_new_tokens: Positive
    batch_size: Positive
    bootstrap_samples: Positive
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)]
