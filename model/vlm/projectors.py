"""Projectors, from the vision encoder's patch features to the decoder's embeddings: [B, P, D_vision] -> [B, T, D]."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from model.vlm.configuration import VlmConfig
from model.vlm.grids import ldpv2_grid


def build_projector(config: VlmConfig) -> nn.Module:
    if config.projector == "linear":
        return nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
    if config.projector == "mlp":
        return LlavaMultiModalProjector(config)
    if config.projector == "ldp":
        return LDPProjector(config)
    return LDPv2Projector(config)


def to_grid(hidden: Tensor) -> Tensor:
    """[B, P, D] -> [B, D, side, side]; patches are in row-major order."""
    batch, patches, width = hidden.shape
    side = int(patches**0.5)
    return hidden.transpose(1, 2).reshape(batch, width, side, side)


def to_sequence(grid: Tensor) -> Tensor:
    """[B, D, side, side] -> [B, P, D]"""
    return grid.flatten(2).transpose(1, 2)


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels, at each position, of [B, D, H, W]."""

    def forward(self, grid: Tensor) -> Tensor:
        return super().forward(grid.movedim(1, -1)).movedim(-1, 1)


class SqueezeExcitation(nn.Module):
    """Scales each channel of [B, D, H, W] by a gate computed from the means of all channels (arXiv 1709.01507, with
    MobileNetV3's hard sigmoid)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = max(1, width // 4)
        self.squeeze = nn.Linear(width, squeezed)
        self.excite = nn.Linear(squeezed, width)

    def forward(self, grid: Tensor) -> Tensor:
        scale = self.excite(nn.functional.relu(self.squeeze(grid.mean((2, 3)))))  # [B, D]
        return grid * nn.functional.hardsigmoid(scale)[:, :, None, None]


class SeparableBlock(nn.Module):
    """MobileNetV3's block (arXiv 1905.02244) without expansion: depthwise convolution, squeeze and excitation,
    pointwise convolution. [B, D, H, W] -> [B, D, H / stride, W / stride], rounded up."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1
        # No biases: the norms that follow have some.
        self.depthwise = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, groups=width, bias=False)
        self.depthwise_norm = ChannelLayerNorm(width)
        self.excitation = SqueezeExcitation(width)
        self.pointwise = nn.Conv2d(width, width, kernel_size=1, bias=False)
        self.pointwise_norm = ChannelLayerNorm(width)

    def forward(self, grid: Tensor) -> Tensor:
        hidden = nn.functional.hardswish(self.depthwise_norm(self.depthwise(grid)))
        hidden = self.pointwise_norm(self.pointwise(self.excitation(hidden)))
        return grid + hidden if self.residual else hidden


class LDPProjector(nn.Module):
    """MobileVLM v1 (arXiv 2312.16886, section 3.4): two linear layers, then two depthwise-separable blocks, the
    second with stride 2."""

    def __init__(self, config: VlmConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, width)
        self.linear_2 = nn.Linear(width, width)
        self.keep = SeparableBlock(width, stride=1)
        self.halve = SeparableBlock(width, stride=2)

    def forward(self, patch_features: Tensor) -> Tensor:
        hidden = self.linear_2(nn.functional.gelu(self.linear_1(patch_features)))  # [B, P, D]
        return to_sequence(self.halve(self.keep(to_grid(hidden))))  # [B, ldp_grid * ldp_grid, D]


class LDPv2Projector(nn.Module):
    """MobileVLM v2 (arXiv 2402.03766, section 3.3): two linear layers, pooling, and a depthwise position encoding."""

    def __init__(self, config: VlmConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.grid = ldpv2_grid(config.patch_grid)
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, width)
        self.linear_2 = nn.Linear(width, width)
        self.position = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)

    def forward(self, patch_features: Tensor) -> Tensor:
        hidden = self.linear_2(nn.functional.gelu(self.linear_1(patch_features)))  # [B, P, D]
        pooled = nn.functional.adaptive_avg_pool2d(to_grid(hidden), self.grid)
        return to_sequence(self.position(pooled) + pooled)  # [B, grid * grid, D]
