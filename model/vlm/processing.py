"""The processor, of transformers' own classes: pictures and dialogues to model inputs."""

from __future__ import annotations

from transformers import LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from model.vlm.configuration import VlmConfig


def image_processor(image_size: int) -> CLIPImageProcessorPil:
    """CLIP's preprocessing for pictures of any size: resize, crop, scale, normalise.

    Transparent pixels become white, as in transformers; MiniMind-V shows the colours that transparency hides.
    """
    return CLIPImageProcessorPil(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )


def build_processor(tokenizer: PreTrainedTokenizerFast, config: VlmConfig) -> LlavaProcessor:
    """The processor for a model of this configuration. ``tokenizer`` must have an image token and a chat template."""
    return LlavaProcessor(
        image_processor=image_processor(config.vision_config.image_size),
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy="default",
        # LlavaProcessor adds this to the number of patches and, for "default", subtracts 1 for the class token.
        num_additional_image_tokens=1 + config.image_tokens - config.patch_grid**2,
        chat_template=tokenizer.chat_template,
    )
