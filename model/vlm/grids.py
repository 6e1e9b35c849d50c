"""The number of positions that a picture takes in the decoder's sequence. Nothing here needs torch."""

from __future__ import annotations

PROJECTORS = ("linear", "mlp", "ldp", "ldpv2")


def image_tokens(projector: str, patch_grid: int) -> int:
    """Image tokens of a picture of ``patch_grid`` x ``patch_grid`` patches."""
    grid = {"ldp": ldp_grid, "ldpv2": ldpv2_grid}.get(projector, int)
    return grid(patch_grid) ** 2


def ldp_grid(patch_grid: int) -> int:
    """Side of LDP's output grid: its second block has stride 2 and starts at the first patch; 24 to 12, 14 to 7."""
    return (patch_grid + 1) // 2


def ldpv2_grid(patch_grid: int) -> int:
    """Side of LDPv2's pooled grid, 12 / 14 of the patches: MiniMind-V pools 14 to 12 (MobileVLM v2: 24 to 12)."""
    return max(1, round(patch_grid * 12 / 14))
