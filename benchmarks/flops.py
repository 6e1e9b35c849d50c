"""Floating-point operations of training, without those on padding: logits, and the last layer's MLP, are computed at
target positions only.

A product of [m, k] and [k, n] takes 2 m k n. For a sample of T tokens, I of which are a picture's, and N targets:

    layers     2 T (2 D^2 + 2 D D_kv) each: query, output, key and value projections
    MLPs       2 T 3 D F each, the last one 2 N 3 D F
    attention  2 T^2 D each: two products, the causal half of either
    head       2 N D V
    projector  2 I D_vision D

Backward, every product takes another one of its size for the gradient of what came in, and, where its weights learn,
one more for theirs; so layers, MLPs and head take 3 times the forward pass in SFT, and 2 times in pretraining, where
they are frozen. Attention has no weights and takes 3 times in both, the projector 2, for nothing flows back to what
comes in. A step that runs the vision encoder takes its forward pass as well. Norms, activations and the optimizer are
left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from transformers import CLIPVisionConfig, LlamaConfig


def decoder_forward(config: LlamaConfig, tokens: int, targets: int) -> tuple[float, float]:
    """Operations of (products with weights, attention)."""
    width, heads = config.hidden_size, config.num_attention_heads
    keys = width // heads * config.num_key_value_heads
    layers = config.num_hidden_layers
    projections = layers * 2 * tokens * (2 * width**2 + 2 * width * keys)
    mlps = 2 * (tokens * (layers - 1) + targets) * 3 * width * config.intermediate_size
    head = 2 * targets * width * config.vocab_size
    return projections + mlps + head, layers * 2 * tokens**2 * width


def vision_forward(config: CLIPVisionConfig) -> float:
    """Operations of the vision encoder on one picture."""
    patches, width = (config.image_size // config.patch_size) ** 2, config.hidden_size
    tokens = patches + 1
    layer = 2 * tokens * (4 * width**2 + 2 * width * config.intermediate_size) + 4 * tokens**2 * width
    return config.num_hidden_layers * layer + 2 * patches * width * 3 * config.patch_size**2


def training(
    decoder: LlamaConfig,
    vision: CLIPVisionConfig,
    samples: Iterable[tuple[int, int]],
    frozen_decoder: bool,
    pixels: bool,
) -> float:
    """Operations on ``samples`` (tokens, targets), each with one picture; ``pixels``: with the vision encoder."""
    patches = (vision.image_size // vision.patch_size) ** 2
    projector = 2 * patches * vision.hidden_size * decoder.hidden_size
    total = 0.0
    for tokens, targets in samples:
        weights, attention = decoder_forward(decoder, tokens, targets)
        total += (2 if frozen_decoder else 3) * weights + 3 * attention + 2 * projector
        total += vision_forward(vision) if pixels else 0
    return total
