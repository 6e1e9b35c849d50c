"""A very small model, untrained, that answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig

from model.vlm.configuration import vlm_config
from model.vlm.modeling import VlmForConditionalGeneration
from model.vlm.tokenization import with_image_token
from stages.evaluate.answer.answerer import Answerer

TOKENIZER = with_image_token(Path(__file__).parents[1] / "model/fixtures/tokenizer")
POSITIONS = 256


@pytest.fixture
def answerer() -> Answerer:
    torch.manual_seed(0)
    text = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = vlm_config(
        CLIPVisionConfig(**vision, image_size=16, patch_size=8),
        LlamaConfig(**text, vocab_size=len(TOKENIZER), intermediate_size=16, max_position_embeddings=POSITIONS),
        "linear",
        TOKENIZER.convert_tokens_to_ids("<image>"),
    )
    return Answerer(VlmForConditionalGeneration(config), TOKENIZER, 2)
