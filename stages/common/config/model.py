"""Section model."""

from __future__ import annotations

from typing import Literal

from stages.common.config.base import Section


class ModelParams(Section):
    projector: Literal["linear", "mlp", "ldp", "ldpv2"]
