"""MiniMind-V written a second time, in plain PyTorch from the papers, to compare the model with.

Vision Transformer (arXiv 2010.11929) with CLIP's pre-layer-norm variant and QuickGELU (arXiv 2103.00020); RMSNorm
(arXiv 1910.07467), rotary positions (arXiv 2104.09864) on halves of a head, grouped queries (arXiv 2305.13245), SwiGLU
(arXiv 2002.05202). One sequence at a time, no cache, no library's modules; weights under the names of their files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

Weights = dict[str, Tensor]


def preprocess(picture: Image.Image, size: int) -> Tensor:
    """[3, S, S]: shortest side to S by bicubic interpolation, the middle cut out, CLIP's normalisation."""
    picture = picture.convert("RGB")
    width, height = picture.size
    shortest = min(width, height)
    resized = picture.resize((size * width // shortest, size * height // shortest), Image.Resampling.BICUBIC)
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    cut = resized.crop((left, top, left + size, top + size))
    pixels = torch.tensor(list(cut.tobytes()), dtype=torch.float32).view(size, size, 3) / 255
    return ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
    return centred * scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def affine(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attention(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """[H, T, d] each -> [T, H * d]"""
    scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores[0], dtype=torch.bool).triu(1), -math.inf)
    return (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)


def split(x: Tensor, heads: int) -> Tensor:
    """[T, H * d] -> [H, T, d]"""
    return x.view(len(x), heads, -1).transpose(0, 1)


def vision(weights: Weights, pixels: Tensor, heads: int, layers: int) -> Tensor:
    """[3, S, S] -> [P, D]: the last layer's output before the post layer norm, without the class token."""
    kernel = weights["vision_model.embeddings.patch_embedding.weight"]  # [D, 3, p, p]
    patch = kernel.shape[-1]
    patches = pixels.unfold(1, patch, patch).unfold(2, patch, patch).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    tokens = torch.cat([weights["vision_model.embeddings.class_embedding"][None], patches @ kernel.flatten(1).T])
    hidden = tokens + weights["vision_model.embeddings.position_embedding.weight"]
    hidden = layer_norm(hidden, weights, "vision_model.pre_layrnorm")
    for number in range(layers):
        name = f"vision_model.encoder.layers.{number}"
        x = layer_norm(hidden, weights, f"{name}.layer_norm1")
        query, key, value = (split(affine(x, weights, f"{name}.self_attn.{part}_proj"), heads) for part in "qkv")
        mixed = attention(query, key, value, causal=False)
        hidden = hidden + affine(mixed, weights, f"{name}.self_attn.out_proj")
        x = affine(layer_norm(hidden, weights, f"{name}.layer_norm2"), weights, f"{name}.mlp.fc1")
        hidden = hidden + affine(x * torch.sigmoid(1.702 * x), weights, f"{name}.mlp.fc2")
    return hidden[1:]


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight


def rotate(x: Tensor) -> Tensor:
    """[H, T, d]: component i and i + d / 2 are turned together by position * 1e6 ** (-2 i / d)."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[1])[:, None] * 1e6 ** (-torch.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)


def decoder(weights: Weights, hidden: Tensor, heads: int, groups: int, layers: int) -> Tensor:
    """Embeddings [T, D] -> logits [T, V]"""
    for number in range(layers):
        name = f"model.layers.{number}"
        x = rms_norm(hidden, weights[f"{name}.input_layernorm.weight"])
        query, key, value = (
            split(x @ weights[f"{name}.self_attn.{part}_proj.weight"].T, count)
            for part, count in (("q", heads), ("k", groups), ("v", groups))
        )
        key, value = (part.repeat_interleave(heads // groups, 0) for part in (rotate(key), value))
        hidden = hidden + attention(rotate(query), key, value, True) @ weights[f"{name}.self_attn.o_proj.weight"].T
        x = rms_norm(hidden, weights[f"{name}.post_attention_layernorm.weight"])
        gate, up = (x @ weights[f"{name}.mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        hidden = hidden + (gate * torch.sigmoid(gate) * up) @ weights[f"{name}.mlp.down_proj.weight"].T
    return rms_norm(hidden, weights["model.norm.weight"]) @ weights["model.embed_tokens.weight"].T


def logits(
    weights: Weights,
    clip: Weights,
    ids: Sequence[int],
    picture: Image.Image,
    placeholder: int,
    *,
    size: int = 16,
    vision_heads: int = 2,
    heads: int = 4,
    groups: int = 2,
    layers: int = 2,
) -> Tensor:
    """[T, V] for ids in which a picture is a run of placeholders."""
    embedded = weights["model.embed_tokens.weight"][list(ids)]
    features = vision(clip, preprocess(picture, size), vision_heads, 2)
    start = list(ids).index(placeholder)
    projected = affine(features, weights, "vision_proj.vision_proj.0")
    embedded = torch.cat([embedded[:start], projected, embedded[start + len(projected) :]])
    return decoder(weights, embedded, heads, groups, layers)


def training(
    weights: Weights, clip: Weights, rows: Sequence[tuple[list[int], list[bool], Image.Image]], lr: float, at: int
) -> list[float]:
    """Losses before each step of AdamW with the gradient's norm clipped to one; ``at`` is the placeholder."""
    weights = {name: value.clone().requires_grad_(True) for name, value in weights.items() if name != "lm_head.weight"}
    optimizer = torch.optim.AdamW(weights.values(), lr=lr)
    losses = []
    for ids, targets, picture in rows:
        predicted = logits(weights, clip, ids, picture, at)[:-1].log_softmax(-1)
        chosen = predicted[torch.arange(len(ids) - 1), ids[1:]]
        loss = -chosen[torch.tensor(targets[1:])].mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
    return losses
