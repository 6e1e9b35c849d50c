"""Greedy decoding of many prompts at once.

transformers' ``generate`` computes a batch until its longest answer ends. Here an answer that has ended leaves the
batch: descriptions differ in length so much that this halves the work.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache

from model.vlm.modeling import VlmForConditionalGeneration


def generate(
    model: VlmForConditionalGeneration, embeddings: Tensor, mask: Tensor, max_new_tokens: int, end_id: int
) -> list[list[int]]:
    """The most likely next token each time, until ``end_id`` (not returned) or ``max_new_tokens``.

    ``embeddings`` [B, T, D] of left-padded prompts, ``mask`` [B, T]: 1 at their tokens, 0 at padding.
    """
    decoder, cache = model.model.language_model, DynamicCache()
    answers: list[list[int]] = [[] for _ in embeddings]
    rows = list(range(len(answers)))  # the prompts that the batch holds
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    for _ in range(max_new_tokens):
        hidden = decoder(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        tokens = model.lm_head(hidden[:, -1]).argmax(-1)
        left = (tokens != end_id).nonzero().squeeze(1)
        if not len(left):
            break
        if len(left) < len(rows):
            rows = [rows[place] for place in left.tolist()]
            cache.batch_select_indices(left)
            tokens, mask, positions = tokens[left], mask[left], positions[left]
        for row, token in zip(rows, tokens.tolist(), strict=True):
            answers[row].append(token)
        embeddings = model.get_input_embeddings()(tokens.unsqueeze(1))
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        positions = positions[:, -1:] + 1
    return answers
