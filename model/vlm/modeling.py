"""The model: LLaVA with a choice of projector, cached patch features, and logits at target positions only."""

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

# The number of targets is padded to a multiple of this. On a CPU every new shape of a matrix product compiles a kernel,
# and thousands of them slow down everything else.
_TARGET_STEP = 128


class LastLayer(LlamaDecoderLayer):
    """A decoder layer that can compute its output at target positions only. After the last layer the other positions'
    outputs are unused, so they need no MLP."""

    def forward(self, hidden_states: Tensor, target_positions: Tensor | None = None, **kwargs) -> Tensor:
        """hidden_states [B, T, D] -> [1, N, D], at ``target_positions`` [N] of the flattened batch; None: [B, T, D]."""
        if target_positions is None:
            return super().forward(hidden_states, **kwargs)
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        hidden = (hidden_states + attended).flatten(0, 1).index_select(0, target_positions).unsqueeze(0)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


def use_target_positions(decoder: LlamaModel) -> None:
    """Makes ``decoder`` accept ``target_positions``. Its weights and everything else stay as they are."""
    decoder.layers[-1].__class__ = LastLayer


class VlmForConditionalGeneration(LlavaForConditionalGeneration):
    """CLIP patch features -> projector -> Llama decoder.

    ``patch_features`` [B, P, D_vision] may be given instead of ``pixel_values``: the vision encoder is frozen, so its
    output for a picture can be computed once and cached.
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
        """[B, P, D_vision], in 16 bits if cached, -> image tokens [B, T, D]."""
        return self.model.multi_modal_projector(patch_features.to(self.dtype))

    def embed(self, input_ids: Tensor, patch_features: Tensor | None) -> Tensor:
        """Token embeddings [B, T, D], with projected ``patch_features`` in place of image tokens, in order; None: no
        images."""
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
        """As LLaVA's, except with ``labels`` [B, T] (-100: no target).

        Then ``logits`` [targets, V] holds the predictions of targets only, and ``loss`` is their summed cross-entropy
        divided by ``num_items_in_batch``, or by their number if that is None.
        """
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
    """The tokens to predict, and where; padded to N, see _TARGET_STEP."""

    positions: Tensor  # [N], in the flattened batch: where each token is predicted, one before its own position
    tokens: Tensor  # [N], -100 for padding
    count: int  # without padding

    @classmethod
    def of(cls, labels: Tensor) -> Targets:
        """From labels [B, T]: token ids, -100 where there is no target."""
        following = nn.functional.pad(labels[:, 1:], (0, 1), value=-100).flatten()
        found = (following != -100).nonzero().squeeze(1)
        # Padded also if there are no targets: an empty tensor would be another shape.
        filled = max(1, -(-len(found) // _TARGET_STEP)) * _TARGET_STEP
        positions = nn.functional.pad(found, (0, filled - len(found)))
        torch._dynamo.maybe_mark_dynamic(positions, 0)  # N differs between packs: compile once
        tokens = following[positions]
        tokens[len(found) :] = -100
        return cls(positions, tokens, len(found))


def target_loss(
    hidden: Tensor, targets: Targets, lm_head: nn.Module, num_items: Tensor | int | None
) -> tuple[Tensor, Tensor]:
    """The targets' summed cross-entropy divided by ``num_items``, or by their number if None, and their logits
    [count, V]. ``hidden`` [N, D] are the hidden states at ``targets.positions``."""
    logits = lm_head(hidden).float()
    loss = nn.functional.cross_entropy(logits, targets.tokens, reduction="sum")
    return loss / (targets.count if num_items is None else num_items), logits[: targets.count]


def build_model(vision: Path, language: Path, projector: str, image_token_id: int) -> VlmForConditionalGeneration:
    """A float32 model from a CLIP directory and a Llama directory, with a new, randomly initialised projector."""
    tower = CLIPVisionModel.from_pretrained(vision, local_files_only=True, dtype=torch.float32)
    decoder = LlamaForCausalLM.from_pretrained(language, local_files_only=True, dtype=torch.float32)
    return join(tower, decoder, projector, image_token_id)


def join(
    tower: CLIPVisionModel, decoder: LlamaForCausalLM, projector: str, image_token_id: int
) -> VlmForConditionalGeneration:
    """A model with copies of the float32 weights of ``tower`` and ``decoder``, and a new projector."""
    config = vlm_config(tower.config, decoder.config, projector, image_token_id)
    config.vision_config._name_or_path = config.text_config._name_or_path = ""  # paths on this machine, not to be saved
    model = VlmForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(decoder.model.state_dict())
    model.tie_weights()
    return model


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """The number of parameters outside the vision encoder (tied ones counted once), and inside it."""
    vision = sum(p.numel() for name, p in model.named_parameters() if ".vision_tower." in name)
    return sum(p.numel() for p in model.parameters()) - vision, vision
