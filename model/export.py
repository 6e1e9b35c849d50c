"""Exports a checkpoint as a LLaVA directory, which transformers loads without this package.

    python -m model.export --to llava DIR OUT

LLaVA's projector has two linear layers with an activation between them. Our mlp projector is the same module. A linear
projector becomes the first layer, with the identity as activation and as second layer, which computes the same
numbers. MobileVLM's projectors (ldp, ldpv2) merge positions, which LLaVA's cannot do.

Nothing is overwritten: OUT must be absent, or an empty directory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from model.commands import atomic_path, require_new, run_command
from model.errors import ConversionError, first_line
from model.minimind.checkpoint import load_directory
from model.vlm.modeling import VlmForConditionalGeneration

EXPORTABLE = ("linear", "mlp")


def to_llava(model: VlmForConditionalGeneration) -> LlavaForConditionalGeneration:
    """A LLaVA model with the same logits. Raises ConversionError if its projector cannot be LLaVA's."""
    config = model.config
    if config.projector not in EXPORTABLE:
        raise ConversionError(
            f"LLaVA has no {config.projector} projector, so only models with {' or '.join(EXPORTABLE)} can be exported"
        )
    state = dict(model.state_dict())
    if config.projector == "linear":
        prefix = "model.multi_modal_projector."
        weight, bias = state.pop(f"{prefix}weight"), state.pop(f"{prefix}bias")
        state[f"{prefix}linear_1.weight"], state[f"{prefix}linear_1.bias"] = weight, bias
        state[f"{prefix}linear_2.weight"] = torch.eye(len(weight), dtype=weight.dtype)
        state[f"{prefix}linear_2.bias"] = torch.zeros_like(bias)
    stock = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=config.vision_config.to_dict(),
            text_config=config.text_config.to_dict(),
            image_token_index=config.image_token_index,
            image_seq_length=config.image_seq_length,
            projector_hidden_act="linear" if config.projector == "linear" else config.projector_hidden_act,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            vision_feature_layer=config.vision_feature_layer,
            multimodal_projector_bias=config.projector == "linear" or config.multimodal_projector_bias,
            tie_word_embeddings=config.tie_word_embeddings,
        )
    ).to(model.dtype)
    stock.load_state_dict(state)
    stock.generation_config = model.generation_config
    return stock.eval()


def load_processor(folder: Path) -> LlavaProcessor:
    """Raises ConversionError if ``folder`` holds no LlavaProcessor."""
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the readers of the processor's files raise different errors
        raise ConversionError(f"{folder} holds no processor that can be read: {first_line(error)}") from error
    if not isinstance(processor, LlavaProcessor):
        raise ConversionError(f"{folder} holds a {type(processor).__name__}, not a LlavaProcessor")
    return processor


def export(folder: Path, out: Path) -> None:
    """Write the model and the processor in ``folder`` as a LLaVA directory. Raises ConversionError."""
    require_new(out)
    model = load_directory(folder)
    if not isinstance(model, VlmForConditionalGeneration):
        raise ConversionError(f"{folder} holds a language model without a projector, not a vision-language model")
    stock, processor = to_llava(model), load_processor(folder)
    with atomic_path(out) as partial:
        stock.save_pretrained(partial)
        processor.save_pretrained(partial)
    print(f"{out}: a LLaVA model, from a {model.config.projector} projector")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m model.export", description="Exports a checkpoint.")
    parser.add_argument("--to", choices=["llava"], required=True)
    parser.add_argument("directory", type=Path, metavar="DIR", help="a checkpoint directory of this project")
    parser.add_argument("out", type=Path, metavar="OUT", help="output; must not exist, or be an empty directory")
    args = parser.parse_args()
    export(args.directory, args.out)


if __name__ == "__main__":
    run_command(main)
