"""Checkpoint directories: ordinary transformers ones, model and processor together."""

from __future__ import annotations

from pathlib import Path

from transformers import LlavaProcessor, PreTrainedTokenizerFast

from model import VlmForConditionalGeneration
from stages.common.files import need_model, whole_folder
from stages.common.paths import CHECKPOINTS
from stages.common.pictures import image_processor


def checkpoint_path(name: str) -> Path:
    return CHECKPOINTS / name


def save_checkpoint(model: VlmForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    vision = model.config.vision_config
    processor = LlavaProcessor(
        image_processor=image_processor(vision.image_size),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default",
        # Added to the patches: the class token, which "default" takes away again, and what the projector merges.
        num_additional_image_tokens=1 + model.config.image_tokens - model.config.patch_grid**2,
        chat_template=tokenizer.chat_template,
    )
    with whole_folder(folder) as partial:
        model.requires_grad_(True).save_pretrained(partial)
        processor.save_pretrained(partial)


def load_checkpoint(name: str) -> VlmForConditionalGeneration:
    """Raises InputError where the stage that makes it has not run yet."""
    folder = checkpoint_path(name)
    need_model(folder, name.replace("sft-", "sft@"))
    return VlmForConditionalGeneration.from_pretrained(folder, local_files_only=True)
