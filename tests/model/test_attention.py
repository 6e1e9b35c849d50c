"""Packed attention against plain attention over one sample at a time; the fast path against the plain one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from accelerate.utils import send_to_device
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import CLIPVisionConfig, LlamaConfig

from model.vlm.attention import _cover_all_positions, packed_attention, packed_attention_in, use_packed_attention
from model.vlm.configuration import vlm_config
from model.vlm.modeling import VlmForConditionalGeneration
from stages.common.data.chat import IGNORED
from stages.common.data.features import CachedFeatures
from stages.common.data.packing import PackCollate, SampleDataset
from stages.common.training.compilation import compile_decoder

IMAGE_ID, PATCHES = 3, 4
# Largest difference from float32 that the format's own rounding makes, relative to the largest value.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}
NEEDS_GPU = (pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"))
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]


def attend(
    lengths: Sequence[int], dtype: torch.dtype, free: int = 1, heads: int = 4, groups: int = 2, device: str = "cpu"
) -> list[Tensor]:
    """Packed attention's result and gradients, and then the same of plain attention in float32, sample by sample."""
    torch.manual_seed(0)
    total, width = sum(lengths) + free, 8
    query, key, value = (torch.randn(1, count, total, width).to(device, dtype) for count in (heads, groups, groups))
    grad_out = torch.randn(1, total, heads, width).to(device, dtype)
    grad_out[:, sum(lengths) :] = 0  # outputs behind the samples are unused
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], device=device)
    leaves = [part.clone().requires_grad_() for part in (query, key, value)]
    out, _ = packed_attention(torch.nn.Identity(), *leaves, None, scaling=width**-0.5, cu_seq_lens_q=bounds)
    out.backward(grad_out)
    found = [out[:, : sum(lengths)], *(leaf.grad[:, :, : sum(lengths)] for leaf in leaves)]
    plain = [part.float().requires_grad_() for part in (query, key, value)]
    with sdpa_kernel(SDPBackend.MATH):  # a fused one leaves rounding where gradients are zero: with a single key
        outs = [
            scaled_dot_product_attention(*(part[:, :, a:b] for part in plain), is_causal=True, enable_gqa=True)
            for a, b in pairwise(bounds.tolist())
        ]
    expected = torch.cat(outs, 2).transpose(1, 2)
    expected.backward(grad_out[:, : sum(lengths)].float())
    return [*found, expected, *(part.grad[:, :, : sum(lengths)] for part in plain)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("lengths", [[1], [5, 16, 17, 3], [40] * 5, [230, 5, 430, 208], [300] * 13])
def test_packed_attention_is_attention_within_each_sample(lengths: list[int], dtype: torch.dtype, device: str) -> None:
    results = attend(lengths, dtype, device=device)
    for found, expected in zip(results[:4], results[4:], strict=True):
        assert (found.float() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(1, 20))
def test_packed_attention_of_any_lengths(lengths: list[int], free: int) -> None:
    results = attend(lengths, torch.float32, free)
    for found, expected in zip(results[:4], results[4:], strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(1, 100), st.integers(0, 30))
def test_bounds_reach_the_end_in_pieces_that_are_not_too_long(lengths: list[int], free: int, more: int) -> None:
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0), sum(lengths)])
    longest = max(lengths) + more
    found = _cover_all_positions(bounds, sum(lengths) + free, longest).tolist()
    assert found[: len(bounds)] == bounds.tolist() and found[-1] == sum(lengths) + free
    assert all(0 <= end - start <= longest for start, end in pairwise(found))


def test_without_bounds_it_is_refused() -> None:
    part = torch.zeros(1, 1, 4, 8)
    with pytest.raises(ValueError, match="the bounds of its samples"):
        packed_attention(torch.nn.Identity(), part, part, part, None, scaling=1.0)


def network() -> VlmForConditionalGeneration:
    torch.manual_seed(0)
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = VlmForConditionalGeneration(
        vlm_config(
            CLIPVisionConfig(**vision, image_size=16, patch_size=8),
            LlamaConfig(**text, num_key_value_heads=2, vocab_size=60),
            "linear",
            IMAGE_ID,
        )
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # as they start, weights are too small for anything to matter
    model.model.vision_tower.requires_grad_(False)
    return model


PIXELS = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Shown:
    """The pictures themselves."""

    key = "pixel_values"

    def __getitem__(self, numbers: Sequence[int]):
        return PIXELS[list(numbers)].numpy()


def dataset(model: VlmForConditionalGeneration, cached: bool) -> SampleDataset:
    """Twelve dialogues of 9 to 86 tokens on none to three pictures, which stand at the start and in the text."""
    generator = torch.Generator().manual_seed(2)
    samples = []
    for number in range(12):
        text = torch.randint(4, 60, (8 + 7 * number,), generator=generator).tolist()
        shown = [(number + place) % 12 for place in range(number % 4)]
        ids = [1, *[IMAGE_ID] * len(shown[:2]), *text[:2], *[IMAGE_ID] * len(shown[2:]), *text[2:]]
        samples.append((shown, ids, [IGNORED] * 6 + ids[6:]))
    with torch.no_grad():
        features = CachedFeatures(model.patch_features(PIXELS.to(model.device)).cpu().numpy())
    return SampleDataset(samples, features if cached else Shown(), PATCHES, IMAGE_ID)


def plain_loss(model: VlmForConditionalGeneration, items: Sequence[dict]) -> Tensor:
    """As the papers have it: each sample alone, pixels through the encoder, logits everywhere."""
    total, count = 0.0, 0
    for item in items:
        batch = {name: torch.from_numpy(item[name]).unsqueeze(0) for name in ("input_ids", "labels")}
        if len(item["pixel_values"]):
            batch["pixel_values"] = torch.from_numpy(item["pixel_values"])
        batch = send_to_device(batch, model.device)
        labels = batch.pop("labels")
        logits = model(**batch).logits
        total += cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=IGNORED, reduction="sum")
        count += int((labels[0, 1:] != IGNORED).sum())
    return total / count


def gradients(model: VlmForConditionalGeneration, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_the_fast_path_has_the_plain_path_s_loss_and_gradients(
    cached: bool, compiled: bool, dtype: torch.dtype, device: str
) -> None:
    """In one pack or in several, however they are cut."""
    model = network().to(device)
    shown = dataset(model, cached=False)
    loss = plain_loss(model, [shown[number] for number in range(12)])
    expected = gradients(model, loss)
    use_packed_attention(model)
    if compiled:
        compile_decoder(model)
    fast, collate = dataset(model, cached), PackCollate(0, 256)
    targets = sum(int((fast[number]["labels"] != IGNORED).sum()) for number in range(12))
    for packs in ([range(12)], [(0, 11, 5), (1, 2, 3, 4), (10, 9), (6, 7, 8)]):
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            batches = (send_to_device(collate([fast[number] for number in pack]), device) for pack in packs)
            losses = [model(**batch, num_items_in_batch=targets).loss for batch in batches]
        found = gradients(model, sum(losses))
        assert sum(losses).item() == pytest.approx(loss.item(), rel=TOLERANCE[dtype])
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            assert (gradient - expected[name]).norm() <= TOLERANCE[dtype] * 2 * expected[name].norm(), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_samples_of_a_pack_do_not_attend_to_each_other(dtype: torch.dtype, device: str) -> None:
    """Another sample in the pack changes no bit of a sample's logits; a change of the sample itself does."""
    model = network().to(device)
    data, collate = dataset(model, True), PackCollate(0, 512)
    items = [data[number] for number in (4, 7, 2)]
    other = {**items[1], "input_ids": items[1]["input_ids"][::-1].copy(), "patch_features": -items[1]["patch_features"]}
    other["labels"] = items[1]["labels"]
    counts = [int((item["labels"][1:] != IGNORED).sum()) for item in items]
    autocast = torch.autocast(device, dtype, enabled=dtype != torch.float32)
    with packed_attention_in(model), torch.no_grad(), autocast:
        before, after = (
            model(**send_to_device(collate(found), device), num_items_in_batch=1).logits.split(counts)
            for found in (items, [items[0], other, items[2]])
        )
    assert torch.equal(before[0], after[0]) and torch.equal(before[2], after[2])
    assert not torch.allclose(before[1], after[1], atol=1e-2)


def test_attention_is_what_it_was_after_a_while_of_packs() -> None:
    model = network()
    ids = torch.tensor([[1, *[IMAGE_ID] * PATCHES, 7, 8]])
    with torch.no_grad():
        before = model(input_ids=ids, pixel_values=PIXELS[:1]).logits
        with packed_attention_in(model), pytest.raises(ValueError, match="cu_seq_lens_q"):
            model(input_ids=ids, pixel_values=PIXELS[:1])
        assert torch.equal(model(input_ids=ids, pixel_values=PIXELS[:1]).logits, before)
