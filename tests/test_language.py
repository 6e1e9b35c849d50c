"""What the places hold while the decoder learns to read without a picture."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from stages.common.chat import END, IMAGE, Encoder
from stages.common.params import load_params
from stages.common.paths import SHARDS
from stages.common.regions import box_weights
from stages.common.world import BACKGROUNDS, COLOUR_WORDS, KINDS, Scene
from stages.language import PlaceCollate, PlaceDataset, language_loss, place_words, text_samples
from stages.prepare.scene import sample_scene
from stages.prepare.world import write_world
from stages.tokenizer import corpus, train_tokenizer

GRID = 6


class Words:
    """An encoder with a token for a letter."""

    def ids(self, text: str) -> list[int]:
        return [ord(text) - ord("a") + 1]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [
        sample_scene(load_params(Path(__file__).parent / "params.yaml").data, 1, "train", index) for index in range(60)
    ]


def right_patches(scene: Scene, words: list[str]) -> tuple[int, int]:
    """Patches that objects cover by more than half, and how many of them name an object of the scene there."""
    covered = right = 0
    for group in scene.groups:
        names = [colour + kind for colour in COLOUR_WORDS[group.colour] for kind in KINDS[group.kind].words]
        for box in group.boxes:
            for patch in (box_weights(box, GRID) > 0.5).nonzero()[0]:
                covered += 1
                right += any(words[patch].endswith(name) for name in names)
    return covered, right


def test_places_name_what_is_there(scenes: list[Scene]) -> None:
    for scene in scenes:
        words = place_words(scene, GRID, 0.0, random.Random(0))
        covered, right = right_patches(scene, words)
        assert covered == right > 0
        free = [word for word in words if any(word.endswith(name) for name in BACKGROUNDS[scene.background].words)]
        touched = sum((box_weights(box, GRID) > 0) for group in scene.groups for box in group.boxes)
        assert len(free) >= (touched == 0).sum() > 0


def test_some_patches_are_misread(scenes: list[Scene]) -> None:
    counts = [right_patches(scene, place_words(scene, GRID, 0.4, random.Random(0))) for scene in scenes]
    covered, right = map(sum, zip(*counts, strict=True))
    # 0.4 of the kinds and 0.2 of the colours are drawn anew, from 26 and from 8
    assert right / covered == pytest.approx((1 - 0.4 * 25 / 26) * (1 - 0.2 * 7 / 8), abs=0.06)


def test_loss_reads_sums_of_words() -> None:
    """Two places, of two words and of one: the same as a model that is handed the sums; noise changes it."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(config).eval()
    batch = {
        "input_ids": torch.tensor([[1, 3, 3, 7, 8]]),
        "labels": torch.tensor([[-100, -100, -100, 7, 8]]),
        "position_ids": torch.arange(5)[None],
        "cu_seq_lens_q": torch.tensor([0, 5]),
        "num_items_in_batch": 2,
        "words": torch.tensor([[10, 11], [12, -1], [-1, -1]]),
        "places": torch.tensor([[1, 0]]),
        "verdicts": torch.tensor([[False, False, False, True, False]]),
    }
    table = model.get_input_embeddings().weight
    embeds = torch.stack([table[1], table[12], table[10] + table[11], table[7], table[8]])[None]
    expected = model(inputs_embeds=embeds, labels=batch["labels"]).loss
    assert language_loss(model, batch, 3, 0.0, 1.0).item() == pytest.approx(expected.item(), rel=1e-5)
    assert language_loss(model, batch, 3, 1.0, 1.0).item() != pytest.approx(expected.item(), rel=1e-5)
    verdict = cross_entropy(model(inputs_embeds=embeds).logits[0, 2], torch.tensor(7))
    more = language_loss(model, batch, 3, 0.0, 5.0) - expected
    assert more.item() == pytest.approx(4 * verdict.item() / 2, rel=1e-4)


def test_a_pack_without_targets_costs_nothing() -> None:
    """Some processes have no share of a batch, and take part all the same."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(config)
    dataset = PlaceDataset([([0], [3, 4, 11], [-100, -100, 11])], [["a", "b"]], [[True]], 3)
    batch = PlaceCollate(0, None, Words())([dataset[-1]])
    assert not batch["verdicts"].any()
    loss = language_loss(model, batch | {"num_items_in_batch": 7}, 3, 0.5, 5.0)
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_verdicts_are_what_a_yes_no_question_is_answered_with_first() -> None:
    """In a pack with a sample that has no targets, as processes without a share of a batch are given."""
    ignored = [-100]
    samples = [
        ([0], [3, 4, 11, 12, 5, 13, 14], ignored * 2 + [11, 12] + ignored + [13, 14]),
        ([1], [3, 4, 15, 16], ignored * 2 + [15, 16]),
    ]
    places, verdicts = [["a", "b"], ["b", "b"]], [[False, True], [True]]
    dataset = PlaceDataset(samples, places, verdicts, 3)
    batch = PlaceCollate(0, None, Words())([dataset[-2], dataset[0], dataset[1]])
    assert batch["labels"][batch["verdicts"]].tolist() == [13, 15]
    assert batch["words"][batch["places"]].squeeze(-1).tolist() == [[2, 2], [1, 2], [2, 2]]


def test_the_world_s_verdicts_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the tokenizer that the pipeline trains: all there are, and nothing else."""
    monkeypatch.chdir(tmp_path)
    params = load_params(Path(__file__).parent / "params.yaml")
    shutil.copytree(Path(__file__).parents[1] / "data/eval", "data/eval")
    SHARDS.mkdir(parents=True)
    scenes = {"train_scenes": 40, "validation_scenes": 1, "test_scenes": 1, "shard_scenes": 40}
    write_world(params.model_copy(update={"data": params.data.model_copy(update=scenes)}), SHARDS)
    tokenizer = train_tokenizer(corpus(40), params.tokenizer)
    encoder = Encoder(tokenizer)
    samples, places, verdicts = text_samples(params.language, GRID, encoder, 1)
    dataset = PlaceDataset(samples, places, verdicts, encoder.token_id(IMAGE))
    batch = PlaceCollate(0, None, encoder)([dataset[number] for number in range(len(dataset))])
    said = [tokenizer.decode([token]) for token in batch["labels"][batch["verdicts"]].tolist()]
    assert set(said) == {"有", "没有"}
    answers = tokenizer.decode(batch["labels"][batch["labels"] != -100]).split(END)
    assert len(said) == sum(answer.startswith(("有，", "没有，")) for answer in answers) > 50
