"""LLaVA's configuration plus the choice of projector."""

from __future__ import annotations

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from model.vlm.grids import image_tokens


@strict
class VlmConfig(LlavaConfig):
    """``projector``: linear (MiniMind-V), mlp (LLaVA-1.5), ldp or ldpv2 (MobileVLM v1 and v2)."""

    model_type = "vlm_curriculum"  # as in model/__init__.py

    projector: Literal["linear", "mlp", "ldp", "ldpv2"] = "linear"

    @property
    def patch_grid(self) -> int:
        """Patches along one side of the picture."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def image_tokens(self) -> int:
        """Positions that one picture takes in the decoder's sequence."""
        return image_tokens(self.projector, self.patch_grid)


def vlm_config(vision: CLIPVisionConfig, text: LlamaConfig, projector: str, image_token_id: int) -> VlmConfig:
    """The configuration of a model of these parts. Patch features are those of MiniMind-V: the last hidden state before
    the post layer norm, without the class token. The output layer is tied to the token embeddings."""
    config = VlmConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict() | {"tie_word_embeddings": True},
        projector=projector,
        image_token_index=image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    config.image_seq_length = config.image_tokens
    return config
