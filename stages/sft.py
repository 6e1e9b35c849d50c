"""Stage sft@phase: one fine-tuning phase; trains all but the vision encoder: `python -m stages.sft PHASE`.

in: data/sft/<phase>, data/features, the checkpoint that the phase names in `after`; params seed, sft.
out: checkpoints/sft-<phase>, reports/loss/sft-<phase>.csv
"""

from __future__ import annotations

import sys

from model.vlm.attention import use_packed_attention
from stages.common.config.params import load_params
from stages.common.core.errors import InputError
from stages.common.core.paths import FEATURES, PHASES, SHARDS
from stages.common.core.stage import run_stage
from stages.common.data.batches import plan_batches
from stages.common.data.chat import IMAGE, load_tokenizer
from stages.common.data.features import load_pictures
from stages.common.data.packing import PackCollate, SampleDataset, check_positions, pack_length
from stages.common.data.samples import Samples
from stages.common.training.checkpoints import checkpoint_path, epoch_saver, load_checkpoint, save_checkpoint
from stages.common.training.launch import run_distributed
from stages.common.training.loop import train


def main() -> None:
    params = load_params()
    phase = sys.argv[1] if len(sys.argv) == 2 else ""
    if phase not in params.sft.phases:
        raise InputError(f"usage: python -m stages.sft PHASE, one of {', '.join(params.sft.phases)}")
    name = f"sft-{phase}"
    after = params.sft.phases[phase].after
    tokenizer = load_tokenizer()
    model = load_checkpoint(after)
    model.model.vision_tower.requires_grad_(False)
    loop = params.sft
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)

    def dataset_of(split: str, file: str) -> SampleDataset:
        pictures = load_pictures(split, params.encode.cache, model.config.vision_config.image_size)
        samples = Samples.read(PHASES / phase / file)
        dataset = SampleDataset(samples, pictures, model.config.image_tokens, image_id)
        check_positions(dataset, model.config.text_config.max_position_embeddings)
        return dataset

    dataset = dataset_of("train", "samples.parquet")
    use_packed_attention(model)
    train(
        name,
        model,
        dataset,
        PackCollate(tokenizer.pad_token_id, pack_length(loop.batch_tokens)),
        plan_batches(
            dataset.lengths, loop.batch_tokens, loop.batch_size, loop.epochs, loop.shuffle_of(phase), params.seed
        ),
        loop,
        params,
        [
            params.seed,
            loop.model_dump(exclude={"phases", "max_len", "fit", "question_share", "questions"}),
            PHASES / phase,
            checkpoint_path(after),
            FEATURES if params.encode.cache else SHARDS,
        ],
        save=lambda epochs, weights, provenance: save_checkpoint(
            model, tokenizer, checkpoint_path(name), weights, epochs, provenance
        ),
        save_epoch=epoch_saver(model, tokenizer, loop),
        validation=dataset_of("validation", "validation.parquet"),
    )


if __name__ == "__main__":
    run_stage(run_distributed(main, "stages.sft"))
