"""How many positions of the decoder's sequence a picture takes; nothing here needs torch."""

from __future__ import annotations

PROJECTORS = ("linear", "mlp", "ldp", "ldpv2")


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
