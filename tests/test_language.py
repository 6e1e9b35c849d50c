"""Patch texts, and the loss of the decoder that is trained on them."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from model.vlm.attention import use_packed_attention
from model.vlm.modeling import use_target_positions
from stages.common.config.language import LanguageParams
from stages.common.config.params import Params, load_params
from stages.common.core.paths import SHARDS
from stages.common.data.chat import IGNORED, IMAGE, Encoder, with_image
from stages.common.data.packing import PackCollate, SampleDataset
from stages.common.data.shards import read_rows
from stages.common.world.regions import box_weights
from stages.common.world.scene import Group, Scene
from stages.common.world.vocabulary import BACKGROUNDS, COLOUR_WORDS, FAR_WORDS, KINDS, POSITION_WORDS
from stages.language import (
    PatchTextCollate,
    PatchTextDataset,
    build_language_model,
    language_loss,
    patch_texts,
    scene_context,
    scene_dialogues,
    text_samples,
    yes_no_ids,
    yes_no_positions,
)
from stages.prepare.scene import sample_scene
from stages.prepare.world import write_world
from stages.tokenizer import corpus, train_tokenizer

GRID = 6


class LetterEncoder:
    """An encoder with a token for each letter."""

    def ids(self, text: str) -> list[int]:
        return [ord(text) - ord("a") + 1]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [
        sample_scene(load_params(Path(__file__).parent / "params.yaml").data, 1, "train", index) for index in range(60)
    ]


def names_of(group: Group) -> tuple[str, ...]:
    colours = ("",) if group.colour is None else COLOUR_WORDS[group.colour]
    return tuple(colour + kind for colour in colours for kind in KINDS[group.kind].words)


def right_patches(scene: Scene, texts: list[str]) -> tuple[int, int]:
    """Patches that objects cover by more than half, and how many of them name an object of the scene there."""
    covered = right = 0
    for group in scene.groups:
        names = names_of(group)
        for box in group.boxes:
            for patch in (box_weights(box, GRID) > 0.5).nonzero()[0]:
                covered += 1
                right += any(texts[patch].endswith(name) for name in names)
    return covered, right


def test_patch_texts_name_what_the_patches_show(scenes: list[Scene]) -> None:
    for scene in scenes:
        texts = patch_texts(scene, GRID, 0.0, random.Random(0), tuple(KINDS))
        covered, right = right_patches(scene, texts)
        assert covered == right > 0
        free = [text for text in texts if any(text.endswith(name) for name in BACKGROUNDS[scene.background].words)]
        touched = sum((box_weights(box, GRID) > 0) for group in scene.groups for box in group.boxes)
        assert len(free) >= (touched == 0).sum() > 0


def test_patch_noise_changes_kinds_and_colours(scenes: list[Scene]) -> None:
    red = [replace(scene, groups=tuple(replace(group, colour="red") for group in scene.groups)) for scene in scenes]
    rng = random.Random(0)
    counts = [right_patches(scene, patch_texts(scene, GRID, 0.4, rng, tuple(KINDS))) for scene in red]
    covered, right = map(sum, zip(*counts, strict=True))
    # 0.4 of the kinds and 0.2 of the colours are drawn anew
    expected = (1 - 0.4 * (1 - 1 / len(KINDS))) * (1 - 0.2 * (1 - 1 / len(COLOUR_WORDS)))
    assert right / covered == pytest.approx(expected, abs=0.06)


def test_patch_noise_takes_kinds_from_the_given_ones(scenes: list[Scene]) -> None:
    for scene in scenes[:10]:
        texts = patch_texts(scene, GRID, 1.0, random.Random(0), ["dog"])
        shown = [t for t in texts if not t.endswith(BACKGROUNDS[scene.background].words)]
        assert shown and all(text.endswith(KINDS["dog"].words) for text in shown)


def test_patch_texts_show_far_things_and_state_no_colour_where_there_is_none(scenes: list[Scene]) -> None:
    colours = [word for words in COLOUR_WORDS.values() for word in words]
    far = found = 0
    for scene in scenes:
        texts = patch_texts(scene, GRID, 0.0, random.Random(0), tuple(KINDS))
        for group in scene.groups:
            named = [text for text in texts if text.endswith(KINDS[group.kind].words)]
            assert all(any(word in text for word in colours) == (group.colour is not None) for text in named)
            far += not group.near
            found += not group.near and bool(named)
    assert found > 0.9 * far > 0


def test_loss_uses_sums_of_token_embeddings() -> None:
    """Two patches, with texts of two tokens and of one: equal to the loss of a model that is given the sums. Noise
    changes it."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(config).eval()
    use_target_positions(model.model)
    batch = {
        "input_ids": torch.tensor([[1, 3, 3, 7, 8]]),
        "labels": torch.tensor([[-100, -100, -100, 7, 8]]),
        "position_ids": torch.arange(5)[None],
        "cu_seq_lens_q": torch.tensor([0, 5]),
        "max_length_q": 8,
        "num_items_in_batch": 2,
        "patch_texts": torch.tensor([[10, 11], [12, -1], [-1, -1]]),
        "patches": torch.tensor([[1, 0]]),
    }
    table = model.get_input_embeddings().weight
    embeds = torch.stack([table[1], table[12], table[10] + table[11], table[7], table[8]])[None]
    expected = model(inputs_embeds=embeds, labels=batch["labels"]).loss
    yes_no_tokens = torch.tensor([6, 7])
    assert language_loss(model, batch, 3, 0.0, yes_no_tokens, 1.0).item() == pytest.approx(expected.item(), rel=1e-5)
    assert language_loss(model, batch, 3, 1.0, yes_no_tokens, 1.0).item() != pytest.approx(expected.item(), rel=1e-5)
    yes_or_no = cross_entropy(model(inputs_embeds=embeds).logits[0, 2], torch.tensor(7))
    extra = language_loss(model, batch, 3, 0.0, yes_no_tokens, 5.0) - expected
    assert extra.item() == pytest.approx(4 * yes_or_no.item() / 2, rel=1e-4)


def test_a_pack_without_targets_has_zero_loss_and_gradients() -> None:
    """A process without a share of a batch gets such a pack."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(config)
    use_target_positions(model.model)
    dataset = PatchTextDataset([([0], [3, 4, 11], [-100, -100, 11])], [["a", "b"]], 3)
    batch = PatchTextCollate(0, None, LetterEncoder())([dataset[-1]])
    loss = language_loss(model, batch | {"num_items_in_batch": 7}, 3, 0.5, torch.tensor([11, 12]), 5.0)
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_only_the_first_token_of_an_answer_is_yes_or_no() -> None:
    """Neither a token in its middle nor one of the next question."""
    labels = torch.tensor([[7, -100, 7, 6, -100, 6, 7, -100, 5, 6, -100]])
    expected = torch.tensor([[True, False, True, False, False, True, False, False, False, False, False]])
    assert yes_no_positions(labels, torch.tensor([6, 7])).equal(expected)


def test_yes_no_tokens_of_the_built_in_world_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the tokenizer that the pipeline trains, one for each yes/no question that is asked."""
    monkeypatch.chdir(tmp_path)
    params = load_params(Path(__file__).parent / "params.yaml")
    shutil.copytree(Path(__file__).parents[1] / "data/eval", "data/eval")
    SHARDS.mkdir(parents=True)
    scenes = {"train_scenes": 40, "validation_scenes": 1, "test_scenes": 1, "shard_scenes": 40}
    write_world(params.model_copy(update={"data": params.data.model_copy(update=scenes)}), SHARDS)
    encoder = Encoder(train_tokenizer(corpus(40), params.tokenizer))
    asked = {"yes": 0, "no": 0, None: 0}
    found = dict(asked)
    yes, no = yes_no_ids(encoder).tolist()
    for row in read_rows("train", ["texts"]):
        for text in row["texts"]:
            expected = text["expected"] if text["expected"] in asked else None
            labels = torch.tensor([encoder.dialogue([(with_image(text["question"]), text["answer"])])[1]])
            first = labels[yes_no_positions(labels, yes_no_ids(encoder))].tolist()
            asked[expected] += 1
            found[expected] += first == {"yes": [yes], "no": [no], None: []}[expected]
    assert found == asked and asked["yes"] == asked["no"] == 120


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Params, Encoder]]:
    """1000 prepared train scenes in the current folder, and a tokenizer trained on texts of theirs."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("world"))
        params = load_params(Path(__file__).parent / "params.yaml")
        shutil.copytree(Path(__file__).parents[1] / "data/eval", "data/eval")
        SHARDS.mkdir(parents=True)
        scenes = {"image_size": 48, "train_scenes": 1000, "validation_scenes": 1, "test_scenes": 1, "shard_scenes": 500}
        write_world(params.model_copy(update={"data": params.data.model_copy(update=scenes)}), SHARDS)
        yield params, Encoder(train_tokenizer(corpus(300), params.tokenizer))


def test_context_lists_every_thing_once_with_its_place_and_colour(scenes: list[Scene]) -> None:
    orders = set()
    for scene in scenes:
        context = scene_context(scene, random.Random(0))
        items = context.rstrip("。\n").split("有：")[1].split("，")
        assert len(items) == len(scene.groups)
        for group in scene.groups:
            places = POSITION_WORDS[group.row, group.column]
            starts = places if group.near else tuple(far + place for far in FAR_WORDS for place in places)
            matching = [item for item in items if item.startswith(starts) and item.endswith(names_of(group))]
            assert len(matching) == 1
        orders.add(items[0].startswith(POSITION_WORDS[scene.groups[0].row, scene.groups[0].column]))
    assert orders == {True, False}


@pytest.mark.parametrize("grounding", ["blind", "context", "slots"])
def test_samples_hold_what_the_grounding_says(small_world: tuple[Params, Encoder], grounding: str) -> None:
    params, encoder = small_world
    language = params.language.model_copy(update={"grounding": grounding, "scenes": 40})
    samples, patches = text_samples(language, GRID, encoder, 1, tuple(KINDS))
    image_id = encoder.token_id(IMAGE)
    assert [ids.count(image_id) for _, ids, _ in samples] == [int(grounding == "slots")] * len(samples)
    assert len(patches) == (len(samples) if grounding == "slots" else 0)
    listed = encoder.ids("有：")[-1]
    assert [listed in ids for _, ids, _ in samples] == [grounding == "context"] * len(samples)
    assert text_samples(language, GRID, encoder, 1, tuple(KINDS)) == (samples, patches)
    assert text_samples(language, GRID, encoder, 2, tuple(KINDS)) != (samples, patches)


def test_scenes_have_questions_or_a_complete_description_as_often_as_the_shares_say(
    small_world: tuple[Params, Encoder],
) -> None:
    params, _ = small_world
    language = params.language.model_copy(update={"questions": 3, "question_share": 0.2, "description_share": 0.7})
    found = Counter()
    for number, row in enumerate(read_rows("train", ["texts"], 400)):
        dialogues = scene_dialogues(row["texts"], 2, language, random.Random(number))
        assert len(dialogues[0][0][1]) == 2 and len(dialogues) in (1, 2)
        for more in dialogues[1:]:
            found[len(more)] += 1
    assert set(found) == {1, 3} and 50 < found[3] < 110 and 240 < found[1] < 320


def test_texts_are_the_same_for_every_grounding(small_world: tuple[Params, Encoder]) -> None:
    params, encoder = small_world
    answers = []
    for grounding in ("blind", "context", "slots"):
        language = params.language.model_copy(update={"grounding": grounding, "scenes": 40})
        samples, _ = text_samples(language, GRID, encoder, 1, tuple(KINDS))
        answers.append([[label for label in labels if label != IGNORED] for _, _, labels in samples])
    assert answers[0] == answers[1] == answers[2]


def held_out_loss(language: LanguageParams, encoder: Encoder, told: bool) -> float:
    """Loss of the captions of 60 scenes after training on those of the others; ``told``: behind the scene's context."""
    samples = []
    for number, row in enumerate(read_rows("train", ["scene", "texts"], 1000)):
        caption = next(text for text in row["texts"] if text["task"] == "caption")
        context = scene_context(Scene.from_json(row["scene"]), random.Random(number)) if told else ""
        samples.append(([], *encoder.dialogue([(context + caption["question"], caption["answer"])])))
    dataset = SampleDataset(samples, None, GRID * GRID, encoder.token_id(IMAGE))
    collate = PackCollate(0, None)
    torch.manual_seed(0)
    model = build_language_model(language, 1000, encoder)
    use_packed_attention(model)
    use_target_positions(model.model)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)

    def mean_loss(numbers: list[int]) -> torch.Tensor:
        batch = collate([dataset[number] for number in numbers])
        batch["num_items_in_batch"] = sum(dataset.targets[number] for number in numbers)
        return language_loss(model, batch, -1, 0.0, torch.tensor([-1, -1]), 1.0)

    rng = random.Random(0)
    for _ in range(200):
        optimizer.zero_grad()
        mean_loss(rng.sample(range(60, len(samples)), 12)).backward()
        optimizer.step()
    with torch.no_grad():
        return mean_loss(list(range(60))).item()


def test_a_decoder_learns_to_use_the_context(small_world: tuple[Params, Encoder]) -> None:
    """On scenes that it was not trained on, it predicts more than a decoder that is told nothing."""
    params, encoder = small_world
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    language = params.language.model_copy(update=sizes | {"intermediate_size": 128})
    blind, context = (held_out_loss(language, encoder, told) for told in (False, True))
    assert context < blind - 0.05
