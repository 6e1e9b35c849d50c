"""Section encode."""

from __future__ import annotations

from stages.common.config.base import Positive, Section


class EncodeParams(Section):
    cache: bool
    batch_size: Positive
    mean_pictures: Positive
