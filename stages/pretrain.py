"""Stage pretrain: trains the projector only, on captions, with encoder and decoder frozen.

in: data/{prepared,tokenizer,vision,language,features}; params seed, model, pretrain.
out: checkpoints/pretrain, reports/loss/pretrain.csv
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from tqdm import tqdm

from model.vlm.attention import use_packed_attention
from model.vlm.modeling import build_model
from stages.common.config.params import load_params
from stages.common.config.pretrain import PretrainParams
from stages.common.core.errors import InputError
from stages.common.core.files import require_model
from stages.common.core.paths import FEATURES, LANGUAGE, SHARDS, TOKENIZER, VISION
from stages.common.core.stage import run_stage
from stages.common.data.batches import plan_batches
from stages.common.data.chat import IMAGE, Encoder, load_tokenizer, with_image
from stages.common.data.features import load_pictures
from stages.common.data.packing import PackCollate, SampleDataset, check_positions, pack_length
from stages.common.data.samples import VALIDATION_ROWS, Sample, Samples, count_targets, cut
from stages.common.data.shards import has_split, picture_starts, read_rows
from stages.common.training.checkpoints import checkpoint_path, epoch_saver, save_checkpoint
from stages.common.training.launch import run_distributed
from stages.common.training.loop import train

CHECKPOINT = "pretrain"


def caption_samples(
    split: str, limit: int | None, loop: PretrainParams, image_tokens: int, encoder: Encoder, seed: int
) -> Samples:
    """One caption for each scene, or one dialogue for each row, of the first ``limit``; longer ones than
    ``loop.max_len`` tokens are dropped or cut (``loop.fit``), and rows without pictures dropped, because the projector
    learns nothing from them.
    """
    starts = picture_starts(split)
    image_id = encoder.token_id(IMAGE)

    def samples() -> Iterator[Sample]:
        rows = read_rows(split, ["texts"], limit)
        total = min(len(starts) - 1, limit or len(starts))
        for number, row in enumerate(tqdm(rows, total=total, unit="row", desc=f"pretrain: texts of {split}")):
            turns = [text for text in row["texts"] if text["task"] == "turn"]
            if not turns:
                rng = random.Random(f"{seed}/pretrain/{number}")
                caption = rng.choice([text for text in row["texts"] if text["task"] == "caption"])
                turns = [caption | {"question": with_image(caption["question"])}]
            length = sum(len(encoder.ids(sentence)) for turn in turns for sentence in turn["answer"])
            if loop.fit == "filter" and length > loop.max_len:
                continue
            pictures = range(starts[number], starts[number + 1])
            sample = (pictures, *encoder.dialogue([(turn["question"], turn["answer"]) for turn in turns]))
            if loop.fit == "cut":
                sample = cut(sample, image_id, image_tokens, loop.max_len)
            if len(sample[0]) and count_targets(sample[2]):
                yield sample

    return Samples.of(samples())


def main() -> None:
    params = load_params()
    loop = params.pretrain
    require_model(VISION, "vision")
    require_model(LANGUAGE, "language")
    tokenizer = load_tokenizer()
    encoder = Encoder(tokenizer)
    torch.manual_seed(params.seed)
    image_id = encoder.token_id(IMAGE)
    model = build_model(VISION, LANGUAGE, params.model.projector, image_id)
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    split = "pretrain" if has_split("pretrain") else "train"

    def dataset_of(split: str, limit: int | None) -> SampleDataset:
        samples = caption_samples(split, limit, loop, model.config.image_tokens, encoder, params.seed)
        pictures = load_pictures(split, params.encode.cache, model.config.vision_config.image_size)
        dataset = SampleDataset(samples, pictures, model.config.image_tokens, image_id)
        check_positions(dataset, model.config.text_config.max_position_embeddings)
        return dataset

    dataset = dataset_of(split, loop.scenes)
    if not len(dataset):
        raise InputError(
            f"params.yaml: pretrain.max_len: no caption of a picture is shown within {loop.max_len} tokens (fit "
            f"{loop.fit}); raise it"
        )
    use_packed_attention(model)
    train(
        CHECKPOINT,
        model,
        dataset,
        PackCollate(tokenizer.pad_token_id, pack_length(loop.batch_tokens)),
        plan_batches(dataset.lengths, loop.batch_tokens, loop.batch_size, loop.epochs, loop.shuffle, params.seed),
        loop,
        params,
        [params.seed, params.model.model_dump(), loop.model_dump(), SHARDS, TOKENIZER, VISION, LANGUAGE, FEATURES],
        save=lambda epochs, weights, provenance: save_checkpoint(
            model, tokenizer, checkpoint_path(CHECKPOINT), weights, epochs, provenance
        ),
        save_epoch=epoch_saver(model, tokenizer, loop),
        validation=dataset_of("validation", VALIDATION_ROWS),
    )


if __name__ == "__main__":
    run_stage(run_distributed(main, "stages.pretrain"))
