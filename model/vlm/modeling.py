"""The model: LLaVA with a choice of projector, cached patch features, and logits only where there is a target."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionModel,
    LlamaForCausalLM,
    LlamaModel,
    LlavaForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.llava.modeling_llava import LlavaCausalLMOutputWithPast

from model.vlm.configuration import VlmConfig, vlm_config
from model.vlm.projectors import build_projector

# Targets are filled up to a multiple of this. On a CPU every new shape of a matrix product costs a compiled kernel,
# and thousands of them slow down everything else.
_TARGET_STEP = 128


class LastLayer(LlamaDecoderLayer):
    """Computes hidden states at target positions only: the others' outputs are unused, so they need no MLP."""

    def forward(self, hidden_states: Tensor, target_positions: Tensor | None = None, **kwargs) -> Tensor:
        """hidden_states [B, T, D] -> [1, N, D], at ``target_positions`` [N] of the flattened batch; None: [B, T, D]."""
        if target_positions is None:
            return super().forward(hidden_states, **kwargs)
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        hidden = (hidden_states + attended).flatten(0, 1).index_select(0, target_positions).unsqueeze(0)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


def use_target_positions(decoder: LlamaModel) -> None:
    """Lets ``decoder`` take ``target_positions``. Its weights, and what else it does, stay as they are."""
    decoder.layers[-1].__class__ = LastLayer


class VlmForConditionalGeneration(LlavaForConditionalGeneration):
    """CLIP patch features -> projector -> Llama decoder.

    ``patch_features`` [B, P, D_vision] may stand in for ``pixel_values``: the vision encoder is frozen, so
    what it says about a picture is computed once and kept.
    """

    config_class = VlmConfig
    config: VlmConfig

    def __init__(self, config: VlmConfig) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = build_projector(config)
        use_target_positions(self.model.language_model)
        self.post_init()

    def patch_features(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, P, D_vision]: the last hidden state before the post norm, without the class token."""
        return self.model.vision_tower(pixel_values).last_hidden_state[:, 1:]

    def project(self, patch_features: Tensor) -> Tensor:
        """[B, P, D_vision], in 16 bits where they are kept, -> image tokens [B, T, D]."""
        return self.model.multi_modal_projector(patch_features.to(self.dtype))

    def embed(self, input_ids: Tensor, patch_features: Tensor | None) -> Tensor:
        """Token embeddings [B, T, D] with the images' positions filled in, in order; None: there are none."""
        embeddings = self.get_input_embeddings()(input_ids)
        if patch_features is None:
            return embeddings
        projected = self.project(patch_features).to(embeddings.dtype)
        mask = self.model.get_placeholder_mask(input_ids, embeddings, projected)
        return embeddings.masked_scatter(mask, projected)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        patch_features: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs,
    ) -> LlavaCausalLMOutputWithPast:
        """As LLaVA's. With ``labels`` (-100 where there is no target) ``logits`` holds only the predictions of
        targets, [N, vocabulary], and ``loss`` is their mean cross-entropy, or their sum over
        ``num_items_in_batch``."""
        if patch_features is not None:
            projected = self.project(patch_features)
            kwargs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=list(projected))}
        if labels is None:
            return super().forward(input_ids=input_ids, pixel_values=pixel_values, **kwargs)
        targets = Targets.of(labels)
        hidden = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            use_cache=False,
            target_positions=targets.positions,
            **kwargs,
        ).last_hidden_state
        loss, logits = target_loss(hidden.squeeze(0), targets, self.lm_head, num_items_in_batch)
        return LlavaCausalLMOutputWithPast(loss=loss, logits=logits)


AutoModelForImageTextToText.register(VlmConfig, VlmForConditionalGeneration)


class Targets(NamedTuple):
    """The ``count`` tokens that are to be predicted, and a few to fill up, which are none."""

    positions: Tensor  # [N], of what predicts them, counting through the batch
    tokens: Tensor  # [N], -100 in what fills up
    count: int

    @classmethod
    def of(cls, labels: Tensor) -> Targets:
        """labels [B, T]: a token, or -100, which is predicted at the position before."""
        following = nn.functional.pad(labels[:, 1:], (0, 1), value=-100).flatten()
        found = (following != -100).nonzero().squeeze(1)
        filled = max(1, -(-len(found) // _TARGET_STEP)) * _TARGET_STEP  # none would be a shape of its own
        positions = nn.functional.pad(found, (0, filled - len(found)))
        torch._dynamo.maybe_mark_dynamic(positions, 0)  # packs differ in it, and are not to be compiled one by one
        tokens = following[positions]
        tokens[len(found) :] = -100
        return cls(positions, tokens, len(found))


def target_loss(
    hidden: Tensor, targets: Targets, lm_head: nn.Module, num_items: Tensor | int | None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of targets by the hidden states [N, D] at their positions: the sum over ``num_items`` or, None, the
    mean; and their logits [count, V]."""
    logits = lm_head(hidden).float()
    loss = nn.functional.cross_entropy(logits, targets.tokens, reduction="sum")
    return loss / (targets.count if num_items is None else num_items), logits[: targets.count]


def build_model(vision: Path, language: Path, projector: str, image_token_id: int) -> VlmForConditionalGeneration:
    """A model from a CLIP directory and a Llama directory; the projector is new, everything else is loaded."""
    tower = CLIPVisionModel.from_pretrained(vision, local_files_only=True, dtype=torch.float32)
    decoder = LlamaForCausalLM.from_pretrained(language, local_files_only=True, dtype=torch.float32)
    return join(tower, decoder, projector, image_token_id)


def join(
    tower: CLIPVisionModel, decoder: LlamaForCausalLM, projector: str, image_token_id: int
) -> VlmForConditionalGeneration:
    """A model with copies of the weights of both, which are in float32, and a new projector."""
    config = vlm_config(tower.config, decoder.config, projector, image_token_id)
    config.vision_config._name_or_path = config.text_config._name_or_path = ""  # of no use where this is read
    model = VlmForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(decoder.model.state_dict())
    model.tie_weights()
    return model


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Parameters outside the vision encoder (tied ones once), and inside it."""
    vision = sum(p.numel() for name, p in model.named_parameters() if ".vision_tower." in name)
    return sum(p.numel() for p in model.parameters()) - vision, vision
