"""Stage vision: a CLIPModel, trained contrastively on the train scenes; frozen from then on.

in: data/prepared, data/tokenizer; params seed, data.image_size, vision. out: data/vision, reports/loss/vision.csv

Two InfoNCE losses. Image-text: pictures against captions, as in CLIP (Radford et al. 2021). Region-text: what an
object's patches say, averaged over its box, against a phrase that names it, as in RegionCLIP (Zhong et al. 2022,
arXiv 2112.09106); it gives each patch the local content that a decoder reads objects from. OpenAI's CLIP gets
that from 400 million pictures; a run of minutes has to ask for it.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import CLIPConfig, CLIPModel

from stages.common.batches import BatchPlan, plan_batches
from stages.common.chat import Encoder, load_tokenizer
from stages.common.errors import run_stage
from stages.common.files import whole_folder
from stages.common.params import Params, load_params
from stages.common.paths import LOSS_LOGS, SHARDS, TOKENIZER, VISION
from stages.common.pictures import image_processor, pixel_values
from stages.common.regions import box_weights
from stages.common.shards import read_rows
from stages.common.training import fingerprint_of, train
from stages.common.world import BACKGROUNDS, COLOUR_WORDS, KINDS, POSITION_WORDS, Scene

_TEXT_END = 0  # <|endoftext|>; CLIP reads a text at its first one. (Id 2 as eos_token_id means something else to it.)
_MAX_TEXT = 77
# Parts that a batch's phrases name -> share of batches: the kind; colour too; place too. Kinds alone teach what a
# kind looks like in any colour, also in one that training never shows it in.
_PHRASE_FORMS = {1: 0.35, 2: 0.4, 4: 0.25}
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
    """Rows of the train split: picture bytes, truth and captions; pictures are decoded when asked for."""

    def __init__(self, scenes: int) -> None:
        self.rows = [
            {
                "image": row["image"],
                "scene": Scene.from_json(row["scene"]),
                "captions": ["".join(text["answer"]) for text in row["texts"] if text["task"] == "caption"],
            }
            for row in read_rows("train", ["image", "scene", "texts"], scenes)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def region_classes(scene: Scene, grid: int) -> list[tuple[tuple, np.ndarray]]:
    """What each region of a scene shows, as (class, weights over the patches [P], summing to 1).

    An object's region is its box; the background's is every patch that no object touches.
    """
    found: list[tuple[tuple, np.ndarray]] = []
    covered = np.zeros(grid * grid, np.float32)
    for group in scene.groups:
        for box in group.boxes:
            weights = box_weights(box, grid)
            covered += weights
            column = min(2, int((box[0] + box[2]) * 1.5))
            found.append(((group.kind, group.colour, group.row, column), weights / weights.sum()))
    free = (covered < 0.05).astype(np.float32)
    if free.sum() > 0:
        found.append(((scene.background,), free / free.sum()))
    return found


def region_phrase(key: tuple, rng: random.Random) -> str:
    """海边, 小狗, 红色的小狗 or 左侧的红色的小狗, as far as ``key`` goes."""
    if key[0] in BACKGROUNDS:
        return rng.choice(BACKGROUNDS[key[0]].words)
    kind, colour, *cell = (*key, None)[: max(2, len(key))]
    name = rng.choice(KINDS[kind].words)
    if colour is None:
        return name
    place = f"{rng.choice(POSITION_WORDS[tuple(cell)])}的" if cell else ""
    return f"{place}{rng.choice(COLOUR_WORDS[colour])}的{name}"


class ContrastiveCollate:
    """Rows -> tensors. Wording is drawn from the scenes' ids and a count, so that a resumed run draws the same."""

    def __init__(self, encoder: Encoder, grid: int, seed: int) -> None:
        self._encoder, self._grid, self._seed = encoder, grid, seed

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        rng = random.Random(f"{self._seed}/{rows[0]['scene'].id}/{rows[-1]['scene'].id}")
        # One form of phrase a batch: "the red dog" beside "the dog" would make a right answer wrong.
        parts = rng.choices(list(_PHRASE_FORMS), list(_PHRASE_FORMS.values()))[0]
        classes: dict[tuple, int] = {}
        targets, weights, owners = [], [], []
        for number, row in enumerate(rows):
            for key, weight in region_classes(row["scene"], self._grid):
                targets.append(classes.setdefault(key[:parts], len(classes)))
                weights.append(weight)
                owners.append(number)
        return {
            "pixel_values": pixel_values([row["image"] for row in rows]),
            "caption_ids": self._texts([rng.choice(row["captions"]) for row in rows]),
            "phrase_ids": self._texts([region_phrase(key, rng) for key in classes]),
            "region_weights": torch.from_numpy(np.stack(weights)),
            "region_owners": torch.tensor(owners),
            "region_targets": torch.tensor(targets),
        }

    def _texts(self, texts: list[str]) -> Tensor:
        ids = [[*self._encoder.ids(text)[: _MAX_TEXT - 1], _TEXT_END] for text in texts]
        longest = max(map(len, ids))
        return torch.tensor([row + [_TEXT_END] * (longest - len(row)) for row in ids])


def contrastive_loss(model: CLIPModel, batch: dict[str, Tensor], region_weight: float) -> Tensor:
    """Image-text plus ``region_weight`` x region-text cross-entropy, both over the batch."""
    seen = model.get_image_features(pixel_values=batch["pixel_values"])
    images = nn.functional.normalize(seen.pooler_output.float(), dim=-1)  # [B, D]
    captions = _text_features(model, batch["caption_ids"])  # [B, D]
    scale = model.logit_scale.exp().clamp(max=100)
    logits = scale * images @ captions.T
    diagonal = torch.arange(len(logits), device=logits.device)
    loss = (nn.functional.cross_entropy(logits, diagonal) + nn.functional.cross_entropy(logits.T, diagonal)) / 2
    if region_weight:
        patches = model.visual_projection(model.vision_model.post_layernorm(seen.last_hidden_state[:, 1:]))  # [B, P, D]
        pooled = (batch["region_weights"].unsqueeze(1) @ patches[batch["region_owners"]].float()).squeeze(1)
        regions = nn.functional.normalize(pooled, dim=-1)  # [R, D]
        phrases = _text_features(model, batch["phrase_ids"])  # [C, D]
        loss = loss + region_weight * nn.functional.cross_entropy(scale * regions @ phrases.T, batch["region_targets"])
    return loss


def _text_features(model: CLIPModel, ids: Tensor) -> Tensor:
    return nn.functional.normalize(model.get_text_features(input_ids=ids).pooler_output.float(), dim=-1)


def vision_plan(scenes: int, params: Params) -> BatchPlan:
    vision = params.vision
    return plan_batches([1] * scenes, min(vision.batch_size, scenes), vision.epochs, True, params.seed)


def main() -> None:
    params = load_params()
    tokenizer = load_tokenizer()
    dataset = SceneDataset(params.vision.scenes)
    torch.manual_seed(params.seed)
    model = build_clip(params, len(tokenizer))
    grid = params.data.image_size // params.vision.patch_size
    log = train(
        "vision",
        model,
        dataset,
        ContrastiveCollate(Encoder(tokenizer), grid, params.seed),
        vision_plan(len(dataset), params),
        params.vision,
        params,
        fingerprint_of(params.seed, params.vision.model_dump(), SHARDS, TOKENIZER),
        loss_of=lambda model, batch: contrastive_loss(model, batch, params.vision.region_weight),
    )
    with whole_folder(VISION) as folder:
        model.save_pretrained(folder)
        image_processor(params.data.image_size).save_pretrained(folder)
    log.write_csv(LOSS_LOGS / "vision.csv")


if __name__ == "__main__":
    run_stage(main)
