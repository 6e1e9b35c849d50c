"""Runs the decoder over many prompts at once; the beginning that prompts about the same pictures share runs once."""

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

    def select(self, indices: Tensor) -> BufferedLayer:
        """Another layer, with a copy of some rows."""
        other = BufferedLayer()
        other.lazy_initialization(self.keys, self.values)
        other.keys, other.values = self.keys[indices], self.values[indices]
        return other


class Beginning(NamedTuple):
    """What prompts share: their first ``tokens``, ``length`` positions with the image tokens, which hold ``shown``
    pictures. ``rows``: where in ``layers`` the keys and values for a tuple of pictures are."""

    tokens: int
    length: int
    shown: int
    layers: list[BufferedLayer]
    rows: dict[tuple[int, ...], int]


class Prefill(NamedTuple):
    """``cache``: keys and values of all positions; ``blocked`` [B, T]: those that only fill up a shorter prompt, on
    its left; ``lengths`` [B]: tokens of each prompt, image tokens included; ``hidden``: hidden states [B, S, D] at the
    last S positions, those after the shared beginning; the last one is after the final norm, those before it, if asked
    for, are of the embedding and after each layer but the last."""

    cache: Cache
    blocked: Tensor
    lengths: Tensor
    hidden: tuple[Tensor, ...]


def shared_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all ``rows`` begin with, but not the last token of any row."""
    first, last = (list(row) for row in (min(rows), max(rows)))  # in alphabetical order; those between them agree, too
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return min(alike, min(map(len, rows)) - 1)


def begin(
    model: VlmForConditionalGeneration, prompts: Sequence[Prompt], features_of: FeaturesOf, longest: int | None = None
) -> Beginning:
    """Runs what ``prompts`` share, ``longest`` tokens at most, once for each tuple of pictures in it."""
    tokens = shared_prefix([prompt.ids for prompt in prompts])
    head = list(prompts[0].ids[: tokens if longest is None else min(tokens, longest)])
    shown = head.count(model.config.image_token_index)
    pictures = dict.fromkeys(tuple(prompt.pictures[:shown]) for prompt in prompts)
    rows = {numbers: row for row, numbers in enumerate(pictures)}
    if not head:
        return Beginning(0, 0, 0, [], rows)
    embeddings = _embed(model, [Prompt(head, numbers) for numbers in rows], features_of)
    cache = Cache(layer_class_to_replicate=BufferedLayer)
    model.model.language_model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
    return Beginning(len(head), embeddings.shape[1], shown, cache.layers, rows)


def prefill(
    model: VlmForConditionalGeneration,
    beginning: Beginning,
    prompts: Sequence[Prompt],
    features_of: FeaturesOf,
    all_layers: bool = False,
) -> Prefill:
    """Runs the rest of ``prompts``, which are among those that ``beginning`` was made of."""
    device, before = model.device, beginning.length
    rows = [beginning.rows[tuple(prompt.pictures[: beginning.shown])] for prompt in prompts]
    chosen = torch.tensor(rows, device=device)
    cache = (
        Cache(layers=[layer.select(chosen) for layer in beginning.layers])
        if beginning.layers
        else Cache(layer_class_to_replicate=BufferedLayer)
    )
    tails = [Prompt(prompt.ids[beginning.tokens :], prompt.pictures[beginning.shown :]) for prompt in prompts]
    padding = torch.tensor(_padding(model, tails), device=device).unsqueeze(1)
    embeddings = _embed(model, tails, features_of)
    width = embeddings.shape[1]
    filler = torch.arange(width, device=device) < padding  # [B, S]
    blocked = torch.cat([filler.new_zeros(len(prompts), before), filler], 1)
    queries = torch.arange(before, before + width, device=device).unsqueeze(1)
    keys = torch.arange(before + width, device=device)
    # A filler sees itself: without any key its output would not be a number.
    unseen = ((keys > queries) | blocked.unsqueeze(1)) & (keys != queries)  # [B, S, T]
    out = model.model.language_model(
        inputs_embeds=embeddings,
        attention_mask=additive_mask(unseen, embeddings.dtype).unsqueeze(1),
        position_ids=before + ((~filler).cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        output_hidden_states=all_layers,
    )
    return Prefill(cache, blocked, before + (~filler).sum(1), out.hidden_states or (out.last_hidden_state,))


def additive_mask(unseen: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores: 0, or where ``unseen`` the smallest number."""
    return torch.zeros(unseen.shape, dtype=dtype, device=unseen.device).masked_fill_(unseen, torch.finfo(dtype).min)


def _length(model: VlmForConditionalGeneration, prompt: Prompt) -> int:
    """Positions, image tokens included."""
    return len(prompt.ids) + (model.config.image_tokens - 1) * len(prompt.pictures)


def _padding(model: VlmForConditionalGeneration, prompts: Sequence[Prompt]) -> list[int]:
    """Positions that each prompt lacks to the longest one."""
    lengths = [_length(model, prompt) for prompt in prompts]
    return [max(lengths) - length for length in lengths]


def _embed(model: VlmForConditionalGeneration, prompts: Sequence[Prompt], features_of: FeaturesOf) -> Tensor:
    """Embeddings [B, T, D], filled up on the left."""
    image_id, times = model.config.image_token_index, model.config.image_tokens
    filler = 0 if image_id else 1  # any token but the placeholder of a picture
    rows = [
        [filler] * empty + [i for token in prompt.ids for i in [token] * (times if token == image_id else 1)]
        for prompt, empty in zip(prompts, _padding(model, prompts), strict=True)
    ]
    pictures = [number for prompt in prompts for number in prompt.pictures]
    return model.embed(torch.tensor(rows, device=model.device), features_of(pictures) if pictures else None)
