"""The operations that the benchmark divides by are those that torch counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig

from benchmarks import flops
from benchmarks.material import freeze
from model.vlm.configuration import vlm_config
from model.vlm.modeling import _TARGET_STEP, VlmForConditionalGeneration

VISION = CLIPVisionConfig(
    hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8
)
DECODER = LlamaConfig(
    vocab_size=400,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=2,
)
PATCHES, TEXT = 16, 240
TARGETS = _TARGET_STEP  # or the model fills them up


def counted(counter: FlopCounterMode) -> tuple[int, int]:
    """(of products with weights, of attention's: what is left)"""
    by_operator = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    attention = by_operator.pop("aten.bmm", 0)
    return sum(by_operator.values()), attention


@pytest.mark.parametrize("task", ["pretrain", "sft"])
def test_training(task: str) -> None:
    model = VlmForConditionalGeneration(vlm_config(VISION, DECODER, "linear", 3))
    freeze(model, task)
    model.set_attn_implementation("eager")
    tokens = PATCHES + TEXT
    ids = torch.cat([torch.full((1, PATCHES), 3), torch.randint(4, 400, (1, TEXT))], 1)
    labels = torch.where(torch.arange(tokens) >= tokens - TARGETS, ids, -100)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, patch_features=torch.randn(1, PATCHES, 48), labels=labels).loss.backward()
    weights, attention = counted(counter)
    whole = flops.training(DECODER, VISION, [(tokens, TARGETS)], frozen_decoder=task == "pretrain", pixels=False)
    halves = 2 * tokens**2 * DECODER.hidden_size * DECODER.num_hidden_layers  # of the forward pass
    assert weights == pytest.approx(whole - 3 * halves, rel=0.01)
    assert attention == pytest.approx(6 * halves, rel=0.01)  # eager attention computes both halves


def test_vision_encoder() -> None:
    model = CLIPVisionModel(VISION)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixel_values=torch.randn(1, 3, 32, 32))
    assert sum(counted(counter)) == pytest.approx(flops.vision_forward(VISION), rel=0.01)
