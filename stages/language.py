"""Stage language: a LlamaForCausalLM, trained on text only, before it ever sees a picture; or fetched, or untrained.

in: data/prepared, data/tokenizer, data/fetched; params seed, data.image_size, vision.patch_size, language.
out: data/language, reports/loss/language.csv

Its dialogues are those of the train scenes. Where a picture's patches will stand, each place holds words instead:
what is there, as the sum of the words' embeddings. A decoder of this size learns so to look up a place and to tell
what is in several of them; a large chat model brings both along. Some places show the wrong thing and all are noisy,
as patch features will be, so it learns to ask several of them. What is left for pretraining is to put patch features
where such sums lie, as far as the projector can.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from model.errors import ConversionError
from model.minimind.checkpoint import language_model, load_minimind, set_special_tokens
from model.vlm.attention import use_packed_attention
from model.vlm.modeling import Targets, target_loss, use_target_positions
from stages.common.config.language import LanguageParams
from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory
from stages.common.core.paths import LANGUAGE, SHARDS, TOKENIZER
from stages.common.core.processes import is_main_process
from stages.common.core.provenance import Provenance, write_provenance
from stages.common.core.stage import run_stage
from stages.common.data.batches import plan_batches
from stages.common.data.chat import END, IGNORED, IMAGE, PAD, START, Encoder, load_tokenizer, with_image
from stages.common.data.fetched import fetched_file
from stages.common.data.packing import PackCollate, SampleDataset, check_positions, pack_length
from stages.common.data.samples import Sample
from stages.common.data.shards import read_rows
from stages.common.training.callbacks import write_loss_log
from stages.common.training.launch import run_distributed
from stages.common.training.loop import train
from stages.common.world.regions import box_weights
from stages.common.world.scene import Scene
from stages.common.world.vocabulary import BACKGROUNDS, COLOUR_WORDS, KINDS, POSITION_WORDS

_QUESTIONS = 10  # a sample
_QUESTIONS_EVERY, _WHOLE_EVERY = 2, 4  # of this many scenes, one has questions, and one a whole description
_WORDS_STEP = 64  # as for lengths of sequences: few shapes
_SHARE_OF_PATCH = 0.3  # of a patch that an object must cover to be what the patch shows


def build_language_model(params: LanguageParams, vocab_size: int, encoder: Encoder) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=params.hidden_size,
        intermediate_size=params.intermediate_size,
        num_hidden_layers=params.num_hidden_layers,
        num_attention_heads=params.num_attention_heads,
        num_key_value_heads=params.num_key_value_heads,
        max_position_embeddings=params.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": params.rope_theta},
        rms_norm_eps=params.rms_norm_eps,
        tie_word_embeddings=True,
        bos_token_id=encoder.token_id(START),
        eos_token_id=encoder.token_id(END),
        pad_token_id=encoder.token_id(PAD),
    )
    return LlamaForCausalLM(config)


def place_words(scene: Scene, grid: int, patch_noise: float, rng: random.Random) -> list[str]:
    """What each patch of the picture shows, [grid * grid]: where it is, and colour and kind of an object there, or
    the background. A vision encoder's patch features tell all of this too, and err like it: an object's patch has
    another kind with probability ``patch_noise`` and, half as often, another colour."""
    words = [rng.choice(BACKGROUNDS[scene.background].words)] * (grid * grid)
    for group in scene.groups:
        for box in group.boxes:
            for patch in np.flatnonzero(box_weights(box, grid) > _SHARE_OF_PATCH):
                kind = rng.choice(list(KINDS)) if rng.random() < patch_noise else group.kind
                colour = rng.choice(list(COLOUR_WORDS)) if rng.random() < patch_noise / 2 else group.colour
                words[patch] = rng.choice(COLOUR_WORDS[colour]) + rng.choice(KINDS[kind].words)
    third = {cell: rng.choice(names) for cell, names in POSITION_WORDS.items()}
    return [third[patch // grid * 3 // grid, patch % grid * 3 // grid] + word for patch, word in enumerate(words)]


class PlaceDataset(SampleDataset):
    """Text samples whose places hold words: ``places`` is [samples][P] strings."""

    def __init__(self, samples: list[Sample], places: list[list[str]], image_id: int) -> None:
        super().__init__(samples, None, len(places[0]), image_id)
        self._places = places

    def __getitem__(self, index: int) -> dict[str, Any]:
        return super().__getitem__(index) | {"places": self._places[max(index, -1 - index)]}


class PlaceCollate(PackCollate):
    """Adds what the places hold: ``words`` [U, W], the batch's different ones and some empty ones, filled up with -1,
    and ``places`` [S, P], which of them each place holds."""

    def __init__(self, pad_id: int, length: int | None, encoder: Encoder) -> None:
        super().__init__(pad_id, length)
        self._encoder = encoder

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        seen: dict[str, int] = {}
        places = [[seen.setdefault(place, len(seen)) for place in item["places"]] for item in items]
        ids = [self._encoder.ids(place) for place in seen]
        words = np.full((-(-len(ids) // _WORDS_STEP) * _WORDS_STEP, max(map(len, ids))), -1)
        for line, place in zip(words, ids, strict=False):
            line[: len(place)] = place
        return super().__call__(items) | {"words": torch.from_numpy(words), "places": torch.tensor(places)}


def text_samples(
    params: LanguageParams, grid: int, encoder: Encoder, seed: int
) -> tuple[list[Sample], list[list[str]]]:
    """Samples and their places. Per scene: how a description begins; for some, questions, or a whole description.

    Beginnings name what stands in a place, questions find the place of what is named; these two take the practice.
    """
    samples: list[Sample] = []
    places = []
    for number, row in enumerate(read_rows("train", ["scene", "texts"], params.scenes)):
        rng = random.Random(f"{seed}/language/{number}")
        scene = Scene.from_json(row["scene"])
        described = [text for text in row["texts"] if text["task"] == "description"]
        asked = [text for text in row["texts"] if text["task"] != "description"]
        beginning, whole = rng.sample(described, 2)
        dialogues = [[(beginning["question"], beginning["answer"][: len(scene.groups)])]]
        if number % _QUESTIONS_EVERY == 0:
            chosen = rng.sample(asked, min(_QUESTIONS, len(asked)))
            dialogues.append([(text["question"], text["answer"]) for text in chosen])
        if number % _WHOLE_EVERY == 1:
            dialogues.append([(whole["question"], whole["answer"])])
        for turns in dialogues:
            (question, answer), *others = turns
            samples.append(([number], *encoder.dialogue([(with_image(question), answer), *others])))
            places.append(place_words(scene, grid, params.patch_noise, rng))
    return samples, places


def read_places(
    model: LlamaForCausalLM, batch: dict[str, Any], image_id: int, noise: float, target_positions: Tensor
) -> Tensor:
    """Hidden states [W, D] of a pack at ``target_positions`` [W], with Gaussian noise on what the places hold.

    Each sample's noise has a strength of its own, up to ``noise`` standard deviations of what the places hold. Finding
    a thing by its name is learnt on the clear samples; with all of them equally noisy it was not learnt in the time.
    """
    table = model.get_input_embeddings()
    known = (batch["words"] >= 0).unsqueeze(-1)
    sums = (table(batch["words"].clamp(min=0)) * known).sum(1)  # [U, D]
    # A product instead of an index: the backward pass of an index adds row by row.
    chosen = nn.functional.one_hot(batch["places"], len(sums)).to(sums.dtype)  # [S, P, U]
    mask = (batch["input_ids"] == image_id).unsqueeze(-1)
    embeddings = table(batch["input_ids"])
    shown = chosen @ sums  # [S, P, D]
    strength = noise * torch.rand(len(shown), 1, 1, device=shown.device)
    shown = shown + strength * shown.detach().std() * torch.randn_like(shown)
    embeddings = embeddings.masked_scatter(mask, shown.to(embeddings.dtype))
    return model.model(
        inputs_embeds=embeddings,
        position_ids=batch["position_ids"],
        cu_seq_lens_q=batch["cu_seq_lens_q"],
        max_length_q=batch["max_length_q"],
        use_cache=False,
        target_positions=target_positions,
    ).last_hidden_state.squeeze(0)


def yes_no_ids(encoder: Encoder) -> Tensor:
    """The tokens that an answer begins with where it says yes, and where it says no."""
    return torch.tensor([encoder.ids("有，")[0], encoder.ids("没有，")[0]])


def yes_no_positions(labels: Tensor, verdicts: Tensor) -> Tensor:
    """Where an answer begins with one of ``verdicts``: [1, N]."""
    begins = labels != IGNORED
    begins[:, 1:] &= labels[:, :-1] == IGNORED
    return begins & torch.isin(labels, verdicts)


def language_loss(
    model: LlamaForCausalLM,
    batch: dict[str, Any],
    image_id: int,
    noise: float,
    verdicts: Tensor,
    yes_no_weight: float,
) -> Tensor:
    """Cross-entropy of the answers, in which a yes or no counts ``yes_no_weight`` times."""
    labels = batch["labels"]
    targets = Targets.of(labels)
    hidden = read_places(model, batch, image_id, noise, targets.positions)
    loss, logits = target_loss(hidden, targets, model.lm_head, batch["num_items_in_batch"])
    said = yes_no_positions(labels, verdicts.to(labels.device))[:, 1:]
    among_targets = said[labels[:, 1:] != IGNORED]
    more = nn.functional.cross_entropy(logits[among_targets], labels[:, 1:][said], reduction="sum")
    return loss + (yes_no_weight - 1) * more / batch["num_items_in_batch"]


def save_language_model(
    model: LlamaForCausalLM, weights: dict[str, Tensor] | None = None, provenance: Provenance | None = None
) -> None:
    with atomic_directory(LANGUAGE) as folder:
        model.save_pretrained(folder, state_dict=weights)
        if provenance is not None:
            write_provenance(folder, provenance)


def fetched_language_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """MiniMind's weights, converted. Raises InputError if they do not fit together with the tokenizer."""
    try:
        model = language_model(load_minimind(fetched_file("language", "language")))
        set_special_tokens(model, tokenizer)
    except ConversionError as error:
        raise InputError(f"fetch.language: {error}") from None
    return model


def main() -> None:
    params = load_params()
    tokenizer = load_tokenizer()
    encoder = Encoder(tokenizer)
    torch.manual_seed(params.seed)
    if params.language.source == "train":
        train_language_model(params, tokenizer, encoder)
        return
    if not is_main_process():
        return
    if params.language.source == "fetch":
        model = fetched_language_model(tokenizer)
    else:
        model = build_language_model(params.language, len(tokenizer), encoder)
    save_language_model(model)
    write_loss_log("language", [])
    print(f"language: {params.language.source}, {model.num_parameters()} parameters, not trained here")


def train_language_model(params: Params, tokenizer: PreTrainedTokenizerFast, encoder: Encoder) -> None:
    image_id = encoder.token_id(IMAGE)
    verdicts = yes_no_ids(encoder)
    grid = params.data.image_size // params.vision.patch_size
    dataset = PlaceDataset(*text_samples(params.language, grid, encoder, params.seed), image_id)
    check_positions(dataset, params.language.max_position_embeddings)
    torch.manual_seed(params.seed)
    model = build_language_model(params.language, len(tokenizer), encoder)
    use_packed_attention(model)
    use_target_positions(model.model)
    train(
        "language",
        model,
        dataset,
        PlaceCollate(tokenizer.pad_token_id, pack_length(params.language.batch_tokens), encoder),
        plan_batches(dataset.lengths, params.language.batch_tokens, None, params.language.epochs, True, params.seed),
        params.language,
        params,
        [params.seed, grid, params.language.model_dump(), SHARDS, TOKENIZER],
        save=lambda _, weights, provenance: save_language_model(model, weights, provenance),
        loss_of=lambda model, batch: language_loss(
            model, batch, image_id, params.language.noise, verdicts, params.language.yes_no_weight
        ),
    )


if __name__ == "__main__":
    run_stage(run_distributed(main, "stages.language"))
