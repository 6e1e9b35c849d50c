"""Greedy decoding of many prompts at once.

Differs from transformers' ``generate`` in what it saves: the beginning that prompts about the same picture share is
computed once, answers that have ended leave the batch, and keys and values are written into buffers with room for
more positions instead of being copied for every token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from model.vlm.modeling import VlmForConditionalGeneration

_ROOM = 32  # positions by which the buffers grow
_SHRINK = 0.75  # share of unfinished answers in the batch below which the finished ones are dropped

FeaturesOf = Callable[[Sequence[int]], Tensor]  # numbers of pictures -> their patch features [N, P, D_vision]


class Prompt(NamedTuple):
    """``ids``: at least one token, a placeholder for each picture; ``pictures``: their numbers."""

    ids: Sequence[int]
    pictures: Sequence[int]


class BufferedLayer(DynamicLayer):
    """Keys and values [B, K, T, d] of one layer, in buffers with room for more positions."""

    _buffers: tuple[Tensor, ...] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if self._buffers is None or end > self._buffers[0].shape[2]:
            batch, heads, _, width = key_states.shape
            grown = tuple(key_states.new_empty(batch, heads, end + _ROOM, width) for _ in range(2))
            for buffer, kept in zip(grown, (self.keys, self.values), strict=True):
                if start:
                    buffer[:, :, :start] = kept
            self._buffers = grown
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._buffers = None


class Prefill(NamedTuple):
    """What the decoder keeps of a batch of prompts.

    ``blocked`` [B, T]: positions that only fill up a shorter prompt; ``lengths`` [B]: tokens of each prompt, image
    tokens included; ``hidden``: the hidden state [B, D] at each prompt's last position, of the embedding and after
    each layer, the last one after the final norm.
    """

    cache: Cache
    blocked: Tensor
    lengths: Tensor
    hidden: tuple[Tensor, ...]


def shared_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all ``rows`` begin with, but not the last token of any row."""
    first, last = (list(row) for row in (min(rows), max(rows)))  # in alphabetical order; those between them agree, too
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return min(alike, min(map(len, rows)) - 1)


def prefill(model: VlmForConditionalGeneration, prompts: Sequence[Prompt], features_of: FeaturesOf) -> Prefill:
    """Runs the decoder over ``prompts``. What all of them begin with runs once for each picture in it."""
    image_id = model.config.image_token_index
    device, decoder = model.device, model.model.language_model

    def embed(rows: Sequence[Sequence[int]], pictures: Sequence[Sequence[int]]) -> Tensor:
        """Embeddings [B, T, D] of rows of the same length."""
        numbers = [number for row in pictures for number in row]
        return model.embed(torch.tensor(rows, device=device), features_of(numbers) if numbers else None)

    def expand(ids: Sequence[int]) -> list[int]:
        return [i for token in ids for i in [token] * (model.config.image_tokens if token == image_id else 1)]

    cache = Cache(layer_class_to_replicate=BufferedLayer)
    shared = shared_prefix([prompt.ids for prompt in prompts])
    head = expand(prompts[0].ids[:shared])
    shown = list(prompts[0].ids[:shared]).count(image_id)
    if head:
        beginnings = [tuple(prompt.pictures[:shown]) for prompt in prompts]
        unique = {pictures: number for number, pictures in enumerate(dict.fromkeys(beginnings))}
        embeddings = embed([head] * len(unique), list(unique))
        decoder(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
        cache.batch_select_indices(torch.tensor([unique[pictures] for pictures in beginnings], device=device))
    tails = [expand(prompt.ids[shared:]) for prompt in prompts]
    longest = max(map(len, tails))
    padding = [longest - len(tail) for tail in tails]
    pad_id = next(token for token in prompts[0].ids if token != image_id)  # any token but the picture's placeholder
    embeddings = embed(
        [[pad_id] * empty + tail for empty, tail in zip(padding, tails, strict=True)],
        [prompt.pictures[shown:] for prompt in prompts],
    )
    filler = torch.arange(longest, device=device) < torch.tensor(padding, device=device).unsqueeze(1)  # [B, longest]
    blocked = torch.cat([filler.new_zeros(len(prompts), len(head)), filler], 1)
    queries = torch.arange(len(head), len(head) + longest, device=device).unsqueeze(1)
    keys = torch.arange(len(head) + longest, device=device)
    # A filler sees itself, or it would see nothing, and its output would be no number.
    hidden_keys = ((keys > queries) | blocked.unsqueeze(1)) & (keys != queries)  # [B, longest, T]
    out = decoder(
        inputs_embeds=embeddings,
        attention_mask=additive(hidden_keys.unsqueeze(1), embeddings.dtype),
        position_ids=len(head) + ((~filler).cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        output_hidden_states=True,
    )
    lengths = len(head) + (~filler).sum(1)
    return Prefill(cache, blocked, lengths, tuple(layer[:, -1] for layer in out.hidden_states))


def additive(blocked: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to attention scores: 0, or where ``blocked`` the smallest number."""
    return torch.zeros(blocked.shape, dtype=dtype, device=blocked.device).masked_fill_(blocked, torch.finfo(dtype).min)


def generate(
    model: VlmForConditionalGeneration,
    prompts: Sequence[Prompt],
    features_of: FeaturesOf,
    max_new_tokens: int,
    end_id: int,
) -> list[list[int]]:
    """The likeliest next token, again and again, until ``end_id`` (not returned) or ``max_new_tokens``."""
    cache, blocked, positions, (*_, hidden) = prefill(model, prompts, features_of)
    embedding, decoder = model.get_input_embeddings(), model.model.language_model
    length = blocked.shape[1]
    mask = additive(torch.nn.functional.pad(blocked, (0, max_new_tokens)), hidden.dtype)[:, None, None]
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
