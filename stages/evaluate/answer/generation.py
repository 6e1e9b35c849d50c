"""Greedy decoding of many prompts at once.

Differs from transformers' ``generate`` in what it saves: the beginning that prompts about the same picture share is
computed once, answers that have ended leave the batch, and keys and values are written into buffers with room for
more positions instead of being copied for every token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.vlm.modeling import VlmForConditionalGeneration
from stages.evaluate.answer.prefill import FeaturesOf, Prompt, additive_mask, begin, prefill

_SHRINK = 0.75  # share of unfinished answers in the batch below which the finished ones are dropped


def generate(
    model: VlmForConditionalGeneration,
    prompts: Sequence[Prompt],
    features_of: FeaturesOf,
    max_new_tokens: int,
    end_id: int,
) -> list[list[int]]:
    """The likeliest next token, again and again, until ``end_id`` (not returned) or ``max_new_tokens``."""
    cache, blocked, positions, hidden = prefill(model, begin(model, prompts, features_of), prompts, features_of)
    hidden = hidden[-1][:, -1]  # [B, D]
    embedding, decoder = model.get_input_embeddings(), model.model.language_model
    length = blocked.shape[1]
    mask = additive_mask(torch.nn.functional.pad(blocked, (0, max_new_tokens)), hidden.dtype)[:, None, None]
    answers: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # the prompts that the batch holds
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=model.device)
    for number in range(max_new_tokens):
        tokens = model.lm_head(hidden).argmax(-1)
        ended = ended | (tokens == end_id)
        over = ended.tolist()
        for row, token, is_over in zip(rows, tokens.tolist(), over, strict=True):
            if not is_over:
                answers[row].append(token)
        if all(over) or number + 1 == max_new_tokens:
            break
        if over.count(False) < _SHRINK * len(over):
            rows = [row for row, is_over in zip(rows, over, strict=True) if not is_over]
            left = (~ended).nonzero().squeeze(1)
            cache.batch_select_indices(left)
            tokens, ended, mask, positions = tokens[left], ended[left], mask[left], positions[left]
        length += 1
        hidden = decoder(
            inputs_embeds=embedding(tokens.unsqueeze(1)),
            attention_mask=mask[..., :length],
            position_ids=positions.unsqueeze(1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        positions = positions + 1
    return answers
