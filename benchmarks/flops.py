"""Floating-point operations that training needs: no padding, and logits only where there is a target.

A product of [m, k] and [k, n] takes 2 m k n. For a sample of T tokens, I of which are a picture's, and N targets:

    layers     2 T (2 D^2 + 2 D D_kv + 3 D F) each: query, output, key, value projections and the gated MLP
    attention  2 T^2 D each: two products, the causal half of either
    head       2 N D V
    projector  2 I D_vision D

Backward, every product takes another one of its size for the gradient of what came in, and, where its weights learn,
one more for theirs; attention takes twice its forward pass. So SFT is 3 times the forward pass and pretraining, whose
decoder is frozen, 2 times; the projector, to which nothing flows through, takes 2 of its own. A step that runs the
vision encoder takes its forward pass as well. Norms, activations and the optimizer are left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from transformers import CLIPVisionConfig, LlamaConfig


def decoder_forward(config: LlamaConfig, tokens: int, targets: int) -> float:
    width, heads = config.hidden_size, config.num_attention_heads
    keys = width // heads * config.num_key_value_heads
    layer = 2 * tokens * (2 * width**2 + 2 * width * keys + 3 * width * config.intermediate_size)
    attention = 2 * tokens**2 * width
    return config.num_hidden_layers * (layer + attention) + 2 * targets * width * config.vocab_size


def vision_forward(config: CLIPVisionConfig) -> float:
    """Of one picture."""
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
    """Of ``samples`` (tokens, targets), each with one picture; ``pixels``: the vision encoder runs in every step."""
    patches = (vision.image_size // vision.patch_size) ** 2
    projector = 2 * patches * vision.hidden_size * decoder.hidden_size
    total = 0.0
    for tokens, targets in samples:
        total += (2 if frozen_decoder else 3) * decoder_forward(decoder, tokens, targets) + 2 * projector
        total += vision_forward(vision) if pixels else 0
    return total
