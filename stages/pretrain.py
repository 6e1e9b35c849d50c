"""Stage pretrain: the projector alone learns to put patch features where the decoder understands them.

in: data/{prepared,tokenizer,vision,language,features}; params seed, model, pretrain.
out: checkpoints/pretrain, reports/loss/pretrain.csv
"""

from __future__ import annotations

import random

import torch

from model import build_model
from stages.common.batches import plan_batches
from stages.common.chat import IMAGE, Encoder, load_tokenizer
from stages.common.checkpoints import checkpoint_path, save_checkpoint
from stages.common.errors import InputError, run_stage
from stages.common.features import load_features
from stages.common.files import need_model
from stages.common.params import load_params
from stages.common.paths import FEATURES, LANGUAGE, SHARDS, TOKENIZER, VISION
from stages.common.samples import PadCollate, Sample, SampleDataset, check_positions
from stages.common.shards import read_rows
from stages.common.training import train

CHECKPOINT = "pretrain"


def caption_samples(scenes: int, max_len: int, encoder: Encoder, seed: int) -> list[Sample]:
    """One caption a scene, of those that fit in ``max_len`` tokens."""
    samples = []
    for number, row in enumerate(read_rows("train", ["texts"], scenes)):
        rng = random.Random(f"{seed}/pretrain/{number}")
        captions = [text for text in row["texts"] if text["task"] == "caption"]
        text = rng.choice(captions)
        if sum(len(encoder.ids(sentence)) for sentence in text["answer"]) <= max_len:
            samples.append((number, *encoder.dialogue([(text["question"], text["answer"])], image=True)))
    if not samples:
        raise InputError(f"params.yaml: pretrain.max_len: no caption fits in {max_len} tokens; raise it")
    return samples


def main() -> None:
    params = load_params()
    need_model(VISION, "vision")
    need_model(LANGUAGE, "language")
    tokenizer = load_tokenizer()
    encoder = Encoder(tokenizer)
    torch.manual_seed(params.seed)
    image_id = encoder.token_id(IMAGE)
    model = build_model(VISION, LANGUAGE, params.model.projector, image_id)
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    samples = caption_samples(params.pretrain.scenes, params.pretrain.max_len, encoder, params.seed)
    dataset = SampleDataset(samples, load_features("train"), model.config.image_tokens, image_id)
    check_positions(dataset, model.config.text_config.max_position_embeddings)
    train(
        CHECKPOINT,
        model,
        dataset,
        PadCollate(tokenizer.pad_token_id),
        plan_batches(dataset.lengths, params.pretrain.batch_tokens, params.pretrain.epochs, True, params.seed),
        params.pretrain,
        params,
        [params.seed, params.model.model_dump(), params.pretrain.model_dump(), SHARDS, TOKENIZER, LANGUAGE, FEATURES],
        save=lambda: save_checkpoint(model, tokenizer, checkpoint_path(CHECKPOINT)),
    )


if __name__ == "__main__":
    run_stage(main)
