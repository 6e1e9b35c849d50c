"""Region-text pairs, pictures in false colours, and the loss against one that is written out."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import CLIPModel

from stages.common.config.params import Params, load_params
from stages.common.config.tokenizer import TokenizerParams
from stages.common.data.chat import Encoder
from stages.common.world.regions import ASPECTS, phrase_words, regions_of
from stages.common.world.scene import Scene
from stages.common.world.vocabulary import POSITION_WORDS
from stages.prepare.drawing.compose import compose
from stages.prepare.scene import sample_scene
from stages.prepare.wording import Prior, Text, texts_of
from stages.tokenizer import train_tokenizer
from stages.vision import ContrastiveCollate, build_clip, contrastive_loss, recolour

GRID = 6


@pytest.fixture(scope="module")
def params() -> Params:
    params = load_params(Path(__file__).parent / "params.yaml")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16, "text_hidden_size": 16}
    small |= {"text_num_hidden_layers": 1, "projection_dim": 8, "num_attention_heads": 2}
    return params.model_copy(update={"vision": params.vision.model_copy(update=small)})


@pytest.fixture(scope="module")
def scenes(params: Params) -> list[Scene]:
    return [sample_scene(params.data, 1, "train", index) for index in range(12)]


def texts_of_scene(scene: Scene) -> list[Text]:
    return texts_of(scene, Prior(150, 0.7, 0.0, 0.2), random.Random(0))


@pytest.fixture(scope="module")
def encoder(scenes: list[Scene]) -> Encoder:
    texts = ["".join(text.answer) for scene in scenes for text in texts_of_scene(scene)]
    return Encoder(
        train_tokenizer(iter(texts), TokenizerParams(source="train", vocab_size=700, max_token_length=3, scenes=1))
    )


@pytest.fixture(scope="module")
def rows(scenes: list[Scene], params: Params) -> list[dict]:
    rows = []
    for scene in scenes:
        buffer = io.BytesIO()
        compose(scene, params.data.image_size, random.Random(0)).save(buffer, "PNG")
        image = {"bytes": buffer.getvalue(), "path": None}
        captions = ["".join(text.answer) for text in texts_of_scene(scene) if text.task == "caption"]
        rows.append({"image": image, "scene": scene, "captions": captions})
    return rows


def test_region_weights_are_on_the_patches_that_the_object_covers(scenes: list[Scene]) -> None:
    for scene in scenes:
        regions = regions_of(scene, GRID)
        boxes = [(group, box) for group in scene.groups for box in group.boxes]
        assert len(regions) in (len(boxes), len(boxes) + 1)
        for region, (group, box) in zip(regions, boxes, strict=False):
            assert region.weights.sum() == pytest.approx(1, abs=1e-5)
            assert region.phrases["name"] == group.kind and region.phrases.get("colour") == group.colour
            assert "colour" not in region.phrases or group.colour is not None
            row, column = divmod(int(np.argmax(region.weights)), GRID)
            assert box[0] < (column + 1) / GRID and column / GRID < box[2]
            assert box[1] < (row + 1) / GRID and row / GRID < box[3]
            assert region.phrases["position"] in POSITION_WORDS
        for region in regions[len(boxes) :]:
            assert region.phrases == {"name": scene.background}


def test_false_colours_keep_shapes(rows: list[dict]) -> None:
    picture = torch.randn(3, 4, 4)
    changed = [recolour(picture, random.Random(seed)) for seed in range(40)]
    assert len({tuple(other.flatten().tolist()) for other in changed}) == 12
    for other in changed:
        assert torch.allclose(other.abs().sum(0), picture.abs().sum(0))


def test_of_pictures_in_false_colours_only_names_are_used(rows: list[dict], encoder: Encoder, params: Params) -> None:
    batch = ContrastiveCollate(encoder, params.data.image_size, GRID, 0.5, 1)(rows)
    plain = ContrastiveCollate(encoder, params.data.image_size, GRID, 0.0, 1)(rows)
    same = [torch.equal(a, b) for a, b in zip(batch["pixel_values"], plain["pixel_values"], strict=True)]
    assert all(same[:6]) and not all(same[6:])
    assert len(batch["caption_ids"]) == 6 and len(plain["caption_ids"]) == len(rows)
    false_colours = batch["pair_owners"] >= 6
    aspects = batch["phrase_aspects"][batch["pair_targets"]]
    assert false_colours.any() and (aspects[false_colours] == ASPECTS.index("name")).all()
    assert set(aspects[~false_colours].tolist()) == {0, 1, 2}
    objects = sum(len(group.boxes) for row in rows[6:] for group in row["scene"].groups)
    assert int(false_colours.sum()) == objects  # the background's name is not used


def test_the_region_loss_equals_a_loop_over_pairs_and_patches(
    rows: list[dict], encoder: Encoder, params: Params
) -> None:
    torch.manual_seed(0)
    model: CLIPModel = build_clip(params, 700).eval()
    batch = ContrastiveCollate(encoder, params.data.image_size, GRID, 0.25, 1)(rows)
    with torch.no_grad():
        found = contrastive_loss(model, batch, 1.0) - contrastive_loss(model, batch, 0.0)
        hidden = model.vision_model(pixel_values=batch["pixel_values"]).last_hidden_state[:, 1:]
        patches = normalize(model.visual_projection(model.vision_model.post_layernorm(hidden)), dim=-1)
        phrases = normalize(model.get_text_features(input_ids=batch["phrase_ids"]).pooler_output, dim=-1)
        expected = 0.0
        for owner, target, weights in zip(
            batch["pair_owners"], batch["pair_targets"], batch["pair_weights"], strict=True
        ):
            rivals = (batch["phrase_aspects"] == batch["phrase_aspects"][target]).nonzero().flatten()
            for patch in weights.nonzero().flatten():
                scores = (model.logit_scale.exp() * phrases[rivals] @ patches[owner, patch]).softmax(0)
                expected -= weights[patch] * scores[rivals == target].log().item()
    regions = sum(len(regions_of(row["scene"], GRID)) for row in rows[:9])
    regions += sum(len(group.boxes) for row in rows[9:] for group in row["scene"].groups)
    assert found.item() == pytest.approx(expected.item() / regions, rel=1e-4)


@pytest.mark.parametrize("processes", [2, 5])
def test_processes_together_have_the_loss_and_gradients_of_one(
    rows: list[dict], encoder: Encoder, params: Params, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares of twelve pictures, the last ones in false colours. all_gather is replaced, in one process."""
    torch.manual_seed(0)
    model: CLIPModel = build_clip(params, 700).eval()

    def collate(*own: int) -> dict[str, torch.Tensor]:
        return ContrastiveCollate(encoder, params.data.image_size, GRID, 0.25, 1, *own)(rows)

    def gradients(loss: torch.Tensor) -> dict[str, torch.Tensor]:
        model.zero_grad()
        loss.backward()
        return {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}

    complete = contrastive_loss(model, collate(), 1.0)
    expected = gradients(complete)
    batches = [collate(process, processes) for process in range(processes)]
    pooled = [model.get_image_features(pixel_values=batch["pixel_values"]).pooler_output for batch in batches]
    filled = max(map(len, pooled))
    gathered = [torch.nn.functional.pad(part, (0, 0, 0, filled - len(part))) for part in pooled]
    monkeypatch.setattr("torch.distributed.nn.functional.all_gather", lambda own: gathered)
    losses = [contrastive_loss(model, batch, 1.0) for batch in batches]
    found = gradients(sum(losses) / processes)
    assert sum(losses).item() / processes == pytest.approx(complete.item(), rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert (gradient - expected[name]).norm() <= 1e-4 * expected[name].norm() + 3e-6, name


def test_wordings_of_phrases() -> None:
    assert phrase_words("name", "dog") == ("小狗", "狗")
    assert phrase_words("name", "seaside") == ("海边", "沙滩上")
    assert phrase_words("colour", "orange") == ("橙色", "橘色")
    assert phrase_words("position", (0, 2)) == ("右上方", "右上角")
