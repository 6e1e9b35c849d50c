"""Stage vision: a CLIPModel, trained contrastively on the train scenes, or fetched; frozen from then on.

in: data/prepared, data/tokenizer, data/fetched; params seed, data.image_size, vision.
out: data/vision, reports/loss/vision.csv

Two InfoNCE losses. Image-text: pictures against captions, as in CLIP (Radford et al. 2021). Region-text: the patches of
an object against its name, its colour and its position, each among the batch's phrases of that aspect. It comes from
RegionCLIP (Zhong et al. 2022, arXiv 2112.09106), which pools a region before the comparison. Here every patch is
compared by itself, so that each patch feature contains what the patch is part of, and a linear projector is enough to
use it. OpenAI's CLIP learns local content from 400 million pictures; a run of minutes needs the extra loss.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel

from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory
from stages.common.core.paths import SHARDS, TOKENIZER, VISION
from stages.common.core.processes import is_main_process, rank_and_world_size
from stages.common.core.provenance import Provenance, write_provenance
from stages.common.core.stage import run_stage
from stages.common.data.batches import BatchPlan, plan_batches
from stages.common.data.chat import Encoder, load_tokenizer
from stages.common.data.fetched import fetched_folder
from stages.common.data.pictures import image_processor, pixel_values
from stages.common.data.shards import read_rows
from stages.common.training.callbacks import write_loss_log
from stages.common.training.launch import run_distributed
from stages.common.training.loop import train
from stages.common.world.regions import ASPECTS, Aspect, Key, phrase_words, regions_of
from stages.common.world.scene import Scene

_TEXT_END = (
    0  # <|endoftext|>; CLIP pools a text at its first one. (transformers treats an eos_token_id of 2 differently.)
)
_MAX_TEXT = 77
_ACTIVATION = "gelu"  # one fused kernel; CLIP's own quick_gelu took a fifth of a step on a CPU


def build_clip(params: Params, vocab_size: int) -> CLIPModel:
    vision = params.vision
    config = CLIPConfig(
        text_config={
            "vocab_size": vocab_size,
            "hidden_size": vision.text_hidden_size,
            "intermediate_size": 4 * vision.text_hidden_size,
            "num_hidden_layers": vision.text_num_hidden_layers,
            "hidden_act": _ACTIVATION,
            "num_attention_heads": vision.num_attention_heads,
            "max_position_embeddings": _MAX_TEXT,
            "eos_token_id": _TEXT_END,
            "bos_token_id": _TEXT_END,
            "pad_token_id": _TEXT_END,
            "projection_dim": vision.projection_dim,
        },
        vision_config={
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "image_size": params.data.image_size,
            "patch_size": vision.patch_size,
            "projection_dim": vision.projection_dim,
            "hidden_act": _ACTIVATION,
        },
        projection_dim=vision.projection_dim,
    )
    return CLIPModel(config)


class SceneDataset(Dataset):
    """Rows of the train split: encoded picture, scene and captions. ContrastiveCollate decodes the pictures."""

    needs_complete_batches = True  # every process needs all texts of a batch, to compare its pictures with them

    def __init__(self, scenes: int) -> None:
        self.rows = [
            {
                "image": row["images"][0],
                "scene": Scene.from_json(row["scene"]),
                "captions": ["".join(text["answer"]) for text in row["texts"] if text["task"] == "caption"],
            }
            for row in read_rows("train", ["images", "scene", "texts"], scenes)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def recolour(pixels: Tensor, rng: random.Random) -> Tensor:
    """A picture [3, S, S] in false colours: its channels in another order, or a negative, or both."""
    return pixels[rng.sample(range(3), 3)] * rng.choice((1, -1))


class ContrastiveCollate:
    """Rows -> tensors. The random generator is seeded by the scenes' ids, so that a resumed run draws the same.

    The last ``recolour_share`` of a batch's pictures is in false colours, so that names do not depend on colours: these
    pictures have no captions, and of the phrases of their objects only the names are used.

    With several processes, each gets all texts and phrases of the batch, but only its share of pictures and regions.
    """

    def __init__(
        self,
        encoder: Encoder,
        image_size: int,
        grid: int,
        recolour_share: float,
        seed: int,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self._encoder, self._image_size, self._grid = encoder, image_size, grid
        self._recolour_share, self._seed = recolour_share, seed
        self._process, self._processes = process, processes

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        rng = random.Random(f"{self._seed}/{rows[0]['scene'].id}/{rows[-1]['scene'].id}")
        true_colours = len(rows) - int(self._recolour_share * len(rows))
        shares = [len(part) for part in np.array_split(np.arange(len(rows)), self._processes)]
        first = sum(shares[: self._process])
        own = range(first, first + shares[self._process])
        pixels = pixel_values([rows[number]["image"] for number in own], self._image_size)
        phrases: dict[tuple[Aspect, Key], int] = {}
        targets, weights, owners, regions = [], [], [], 0
        for number, row in enumerate(rows):
            if number >= true_colours:
                # Every process draws for every picture, so that all have the same random numbers.
                picture = pixels[number - first] if number in own else torch.zeros(3, 1, 1)
                picture.copy_(recolour(picture, rng))
            for region in regions_of(row["scene"], self._grid):
                used = list(region.phrases.items())
                if number >= true_colours:
                    used = used[:1] if "position" in region.phrases else []
                regions += bool(used)
                for phrase in used:
                    target = phrases.setdefault(phrase, len(phrases))
                    if number in own:
                        targets.append(target)
                        weights.append(region.weights)
                        owners.append(number - first)
        return {
            "pixel_values": pixels,
            "caption_ids": self._texts([rng.choice(row["captions"]) for row in rows[:true_colours]]),
            "phrase_ids": self._texts([rng.choice(phrase_words(*phrase)) for phrase in phrases]),
            "phrase_aspects": torch.tensor([ASPECTS.index(aspect) for aspect, _ in phrases]),
            "shares": torch.tensor(shares),
            "regions": torch.tensor(regions),
            "pair_weights": torch.from_numpy(np.array(weights, np.float32).reshape(-1, self._grid**2)),
            "pair_owners": torch.tensor(owners, dtype=torch.long),
            "pair_targets": torch.tensor(targets, dtype=torch.long),
        }

    def _texts(self, texts: list[str]) -> Tensor:
        ids = [[*self._encoder.ids(text)[: _MAX_TEXT - 1], _TEXT_END] for text in texts]
        longest = max(map(len, ids))
        return torch.tensor([row + [_TEXT_END] * (longest - len(row)) for row in ids])


def contrastive_loss(model: CLIPModel, batch: dict[str, Tensor], region_weight: float) -> Tensor:
    """Image-text plus ``region_weight`` x region-text cross-entropy.

    Region-text is summed over a region's phrases and averaged over the batch's regions. Each patch is classified among
    the phrases of one aspect; a region's patches are weighted by how much of them it covers. ``shares`` holds the
    number of pictures of each process; the mean of the processes' losses is the loss of the batch.
    """
    outputs = model.get_image_features(pixel_values=batch["pixel_values"])
    captions = _text_features(model, batch["caption_ids"])  # [B', D]
    pooled = _gathered(outputs.pooler_output.float(), batch["shares"].tolist())  # [B, D]
    images = nn.functional.normalize(pooled[: len(captions)], dim=-1)  # [B', D]
    scale = model.logit_scale.exp().clamp(max=100)
    logits = scale * images @ captions.T
    diagonal = torch.arange(len(logits), device=logits.device)
    loss = (nn.functional.cross_entropy(logits, diagonal) + nn.functional.cross_entropy(logits.T, diagonal)) / 2
    if region_weight:
        patches = model.visual_projection(model.vision_model.post_layernorm(outputs.last_hidden_state[:, 1:]))
        patches = nn.functional.normalize(patches.float(), dim=-1)  # [B, P, D]
        logits = scale * patches @ _text_features(model, batch["phrase_ids"]).T  # [B, P, C]
        aspects, owners, targets = batch["phrase_aspects"], batch["pair_owners"], batch["pair_targets"]
        totals = torch.stack([logits[..., aspects == aspect].logsumexp(-1) for aspect in range(len(ASPECTS))])
        log_likelihood = logits[owners, :, targets] - totals[aspects[targets], owners]  # [R, P]
        own = (batch["pair_weights"] * log_likelihood).sum() / batch["regions"]
        loss = loss - region_weight * len(batch["shares"]) * own
    return loss


def _gathered(own: Tensor, shares: Sequence[int]) -> Tensor:
    """[B, D] of all processes, from the share of each; gradients flow back to the process that a row is from."""
    if len(shares) == 1:
        return own
    filled = nn.functional.pad(own, (0, 0, 0, max(shares) - len(own)))  # all_gather needs equal shapes
    parts = torch.distributed.nn.functional.all_gather(filled)
    return torch.cat([part[:share] for part, share in zip(parts, shares, strict=True)])


def _text_features(model: CLIPModel, ids: Tensor) -> Tensor:
    return nn.functional.normalize(model.get_text_features(input_ids=ids).pooler_output.float(), dim=-1)


def vision_plan(scenes: int, params: Params) -> BatchPlan:
    vision = params.vision
    return plan_batches([1] * scenes, min(vision.batch_size, scenes), None, vision.epochs, True, params.seed)


def save_clip(
    model: CLIPModel | CLIPVisionModel,
    image_size: int,
    weights: dict[str, Tensor] | None = None,
    provenance: Provenance | None = None,
) -> None:
    with atomic_directory(VISION) as folder:
        model.save_pretrained(folder, state_dict=weights)
        image_processor(image_size).save_pretrained(folder)
        if provenance is not None:
            write_provenance(folder, provenance)


def fetched_clip(params: Params) -> CLIPVisionModel:
    """Raises InputError if the files are no complete CLIP, or one with other sizes of pictures or patches."""
    folder = fetched_folder("vision", "vision")
    try:
        model, found = CLIPVisionModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # several file formats, each with its own errors
        raise InputError(f"fetch.vision: {folder} holds no CLIP: {' '.join(str(error).split())}") from None
    if found["missing_keys"]:
        raise InputError(f"fetch.vision: {folder} holds no complete CLIP, without {min(found['missing_keys'])}")
    for name, expected in (("image_size", params.data.image_size), ("patch_size", params.vision.patch_size)):
        if getattr(model.config, name) != expected:
            section = "data" if name == "image_size" else "vision"
            raise InputError(
                f"params.yaml: {section}.{name}: {expected}, but the fetched vision encoder has "
                f"{getattr(model.config, name)}; set it to that"
            )
    return model


def main() -> None:
    params = load_params()
    if params.vision.source == "train":
        train_clip(params)
    elif is_main_process():
        save_clip(fetched_clip(params), params.data.image_size)
        write_loss_log("vision", [])
        print("vision: fetched, not trained here")


def train_clip(params: Params) -> None:
    tokenizer = load_tokenizer()
    dataset = SceneDataset(params.vision.scenes)
    torch.manual_seed(params.seed)
    model = build_clip(params, len(tokenizer))
    if not torch.cuda.is_available():
        # Sequences are short: on a CPU the fused attention's backward pass takes longer than plain products.
        model.set_attn_implementation("eager")
    grid = params.data.image_size // params.vision.patch_size
    train(
        "vision",
        model,
        dataset,
        ContrastiveCollate(
            Encoder(tokenizer),
            params.data.image_size,
            grid,
            params.vision.recolour_share,
            params.seed,
            *rank_and_world_size(),
        ),
        vision_plan(len(dataset), params),
        params.vision,
        params,
        [params.seed, params.vision.model_dump(), SHARDS, TOKENIZER],
        save=lambda _, weights, provenance: save_clip(model, params.data.image_size, weights, provenance),
        loss_of=lambda model, batch: contrastive_loss(model, batch, params.vision.region_weight),
    )


if __name__ == "__main__":
    run_stage(run_distributed(main, "stages.vision"))
