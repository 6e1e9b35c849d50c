"""LLaVA's configuration plus the choice of projector."""

from __future__ import annotations

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import LlavaConfig

PROJECTORS = ("linear", "mlp", "ldp", "ldpv2")


@strict
class VlmConfig(LlavaConfig):
    """``projector``: linear (MiniMind-V), mlp (LLaVA-1.5), ldp or ldpv2 (MobileVLM v1 and v2)."""

    model_type = "vlm_curriculum"

    projector: Literal["linear", "mlp", "ldp", "ldpv2"] = "linear"

    @property
    def patch_grid(self) -> int:
        """Patches along one side of the picture."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def image_tokens(self) -> int:
        """Positions that one picture takes in the decoder's sequence."""
        return image_tokens(self.projector, self.patch_grid)


def image_tokens(projector: str, patch_grid: int) -> int:
    """Positions that a picture of ``patch_grid`` patches a side takes."""
    grid = {"ldp": ldp_grid, "ldpv2": ldpv2_grid}.get(projector, int)
    return grid(patch_grid) ** 2


def ldp_grid(patch_grid: int) -> int:
    """Side of LDP's grid: its second block takes every other patch, the first among them; 24 to 12, 14 to 7."""
    return (patch_grid + 1) // 2


def ldpv2_grid(patch_grid: int) -> int:
    """Side of LDPv2's pooled grid: MobileVLM v2 pools 24 to 12, MiniMind-V's variant 14 to 12; we keep 12 / 14."""
    return max(1, round(patch_grid * 12 / 14))
