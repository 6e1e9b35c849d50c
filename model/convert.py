"""Converts MiniMind-V's published checkpoints to transformers directories, and back.

    python -m model.convert --minimind CKPT.pth --vision CLIP_DIR --tokenizer TOKENIZER_DIR --out DIR
    python -m model.convert --minimind llm_512.pth --language-only --tokenizer TOKENIZER_DIR --out DIR
    python -m model.convert --to-minimind DIR --out CKPT.pth

Nothing is overwritten: the output must be absent, or an empty directory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import LlamaConfig

from model.commands import atomic_path, require_new, run_command
from model.minimind.checkpoint import (
    language_model,
    load_directory,
    load_minimind,
    set_special_tokens,
    to_minimind,
    vision_language_model,
)
from model.vlm.processing import build_processor
from model.vlm.tokenization import with_image_token


def describe(config: LlamaConfig) -> str:
    """The decoder's sizes, in one line."""
    return (
        f"vocabulary {config.vocab_size}, hidden {config.hidden_size}, intermediate {config.intermediate_size}, "
        f"{config.num_hidden_layers} layers, {config.num_attention_heads} heads of {config.head_dim}, "
        f"{config.num_key_value_heads} key-value heads"
    )


def convert(checkpoint: Path, vision: Path | None, tokenizer_folder: Path, out: Path, heads: int | None) -> None:
    """Write a transformers directory; if ``vision`` is None, of the decoder alone. Raises ConversionError."""
    require_new(out)
    state = load_minimind(checkpoint)
    tokenizer = with_image_token(tokenizer_folder)
    if vision is None:
        model, processor = language_model(state, heads), tokenizer
    else:
        model = vision_language_model(state, vision, tokenizer.convert_tokens_to_ids(tokenizer.image_token), heads)
        processor = build_processor(tokenizer, model.config)
    set_special_tokens(model, tokenizer)
    with atomic_path(out) as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
    kind = "" if vision is None else f", {model.config.projector} projector to {model.config.image_tokens} image tokens"
    print(f"{out}: {describe(model.config.get_text_config())}{kind}")


def convert_back(folder: Path, out: Path) -> None:
    """Write a MiniMind checkpoint file. Raises ConversionError."""
    require_new(out)
    state = to_minimind(load_directory(folder))
    with atomic_path(out) as partial:
        torch.save(state, partial)
    print(f"{out}: {len(state)} tensors in half precision")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m model.convert",
        description="Converts MiniMind-V checkpoints to transformers directories and back.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--minimind", type=Path, metavar="CKPT.pth", help="convert this checkpoint to a directory")
    source.add_argument("--to-minimind", type=Path, metavar="DIR", help="convert this directory to a checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="output; must not exist, or be an empty directory")
    parser.add_argument("--vision", type=Path, metavar="CLIP_DIR", help="a CLIPModel or CLIPVisionModel directory")
    parser.add_argument("--tokenizer", type=Path, metavar="TOKENIZER_DIR", help="MiniMind's tokenizer")
    parser.add_argument("--language-only", action="store_true", help="the checkpoint is a decoder without projector")
    parser.add_argument(
        "--heads", type=int, help="attention heads; default: the number that gives two key-value heads, as in MiniMind2"
    )
    args = parser.parse_args()
    if args.to_minimind:
        if args.vision or args.tokenizer or args.language_only or args.heads is not None:
            parser.error("--to-minimind takes no other option than --out")
        convert_back(args.to_minimind, args.out)
        return
    if args.tokenizer is None:
        parser.error("--minimind needs --tokenizer")
    if args.language_only == (args.vision is not None):
        parser.error("--minimind needs either --vision or --language-only")
    convert(args.minimind, args.vision, args.tokenizer, args.out, args.heads)


if __name__ == "__main__":
    run_command(main)
