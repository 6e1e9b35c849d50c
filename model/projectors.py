"""From patch features of the vision encoder to embeddings of the decoder: [B, P, D_vision] -> [B, T, D_text]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from model.configuration import VlmConfig, ldpv2_grid


def build_projector(config: VlmConfig) -> nn.Module:
    if config.projector == "linear":
        return nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
    if config.projector == "mlp":
        return LlavaMultiModalProjector(config)
    return LDPv2Projector(config)


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
        batch, patches, width = hidden.shape
        side = int(patches**0.5)
        grid = hidden.transpose(1, 2).reshape(batch, width, side, side)
        pooled = nn.functional.adaptive_avg_pool2d(grid, self.grid)
        pooled = self.position(pooled) + pooled
        return torch.flatten(pooled, 2).transpose(1, 2)  # [B, grid * grid, D]
