"""LLaVA's configuration plus the choice of projector."""

from __future__ import annotations

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import LlavaConfig

PROJECTORS = ("linear", "mlp", "ldpv2")


@strict
class VlmConfig(LlavaConfig):
    """``projector``: linear (MiniMind-V), mlp (LLaVA-1.5) or ldpv2 (MobileVLM v2)."""

    model_type = "vlm_curriculum"

    projector: Literal["linear", "mlp", "ldpv2"] = "linear"

    @property
    def patch_grid(self) -> int:
        """Patches along one side of the picture."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def image_tokens(self) -> int:
        """Positions that one picture takes in the decoder's sequence."""
        side = ldpv2_grid(self.patch_grid) if self.projector == "ldpv2" else self.patch_grid
        return side * side


def ldpv2_grid(patch_grid: int) -> int:
    """Side of LDPv2's pooled grid: MobileVLM v2 pools 24 to 12, MiniMind-V's variant 14 to 12; we keep 12 / 14."""
    return max(1, round(patch_grid * 12 / 14))
