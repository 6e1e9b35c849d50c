"""Stage language: a LlamaForCausalLM, trained on text only; or fetched, or untrained.

in: data/prepared, data/tokenizer, data/fetched; params seed, data.image_size, data.kinds, vision.patch_size, language.
out: data/language, reports/loss/language.csv

It is trained on the dialogues of the train scenes. ``language.grounding`` says what it reads of a scene beside them:

- blind: nothing. It learns the language, and which things usually come together.
- context: the scene's things as ordinary text before the first question. It also learns to look up what it was told.
- slots: in place of a picture's image tokens, each patch has a text: the position and what the patch shows, given to
  the decoder as the sum of the text's token embeddings. So a decoder of this size learns to find a patch by its
  position or content, and to describe what several patches show. Some patch texts are wrong and all embeddings are
  noisy, as patch features will be, so that the decoder learns to combine several patches. Pretraining then has to
  project patch features close to such sums.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
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
from stages.common.world.vocabulary import BACKGROUNDS, COLOUR_WORDS, COUNT_WORDS, FAR_WORDS, KINDS, POSITION_WORDS

_DESCRIPTIONS = ("description", "far_first")  # tasks
_TEXTS_STEP = 64  # numbers of patch texts are padded to a multiple of this: few shapes, few kernels
_MIN_COVERAGE = 0.3  # share of a patch that an object must cover for the patch to show it, or the most it covers


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


def patch_texts(scene: Scene, grid: int, patch_noise: float, rng: random.Random, kinds: Sequence[str]) -> list[str]:
    """A text for each patch, [grid * grid]: its position, and the colour, if it has one, and kind of the object that
    covers most of it, or the background. With patch noise, because patch features have errors as well: an object's
    patch names a random one of ``kinds`` with probability ``patch_noise`` and, half as often, a random colour."""
    texts = [rng.choice(BACKGROUNDS[scene.background].words)] * (grid * grid)
    boxes = [(group, box_weights(box, grid)) for group in scene.groups for box in group.boxes]
    most = np.max([weights for _, weights in boxes], axis=0)
    for group, weights in boxes:
        enough = min(_MIN_COVERAGE, weights.max())  # a far thing can be small
        for patch in np.flatnonzero((weights >= enough) & (weights == most)):
            kind = rng.choice(kinds) if rng.random() < patch_noise else group.kind
            colour = group.colour
            if colour is not None and rng.random() < patch_noise / 2:
                colour = rng.choice(list(COLOUR_WORDS))
            texts[patch] = _colour_word(colour, rng) + rng.choice(KINDS[kind].words)
    third = {cell: rng.choice(names) for cell, names in POSITION_WORDS.items()}
    return [third[patch // grid * 3 // grid, patch % grid * 3 // grid] + text for patch, text in enumerate(texts)]


def _colour_word(colour: str | None, rng: random.Random) -> str:
    return "" if colour is None else rng.choice(COLOUR_WORDS[colour])


def scene_context(scene: Scene, rng: random.Random) -> str:
    """A line that lists the scene's things in random order, each with position, count, colour and kind:
    海边有：左上方红色小狗，远处右侧两只蓝色小鸟。

    Nothing in it is wrong, unlike in patch texts: it names each thing once, so the decoder could not tell a wrong word
    from a right one.
    """
    items = []
    for group in rng.sample(scene.groups, len(scene.groups)):
        count = "" if group.count == 1 else COUNT_WORDS[group.count] + KINDS[group.kind].measure
        position, name = rng.choice(POSITION_WORDS[group.row, group.column]), rng.choice(KINDS[group.kind].words)
        far = "" if group.near else rng.choice(FAR_WORDS)
        items.append(far + position + count + _colour_word(group.colour, rng) + name)
    return f"{rng.choice(BACKGROUNDS[scene.background].words)}有：{'，'.join(items)}。\n"


class PatchTextDataset(SampleDataset):
    """Text samples with a text for each patch: ``patches`` is [samples][P] strings."""

    def __init__(self, samples: list[Sample], patches: list[list[str]], image_id: int) -> None:
        super().__init__(samples, None, len(patches[0]), image_id)
        self._patches = patches

    def __getitem__(self, index: int) -> dict[str, Any]:
        return super().__getitem__(index) | {"patches": self._patches[max(index, -1 - index)]}


class PatchTextCollate(PackCollate):
    """Adds ``patch_texts`` [U, W], the token ids of the batch's distinct patch texts, padded with -1 to W tokens and
    with rows of -1 to U texts; and ``patches`` [S, P], the index of each patch's text in it."""

    def __init__(self, pad_id: int, length: int | None, encoder: Encoder) -> None:
        super().__init__(pad_id, length)
        self._encoder = encoder

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        seen: dict[str, int] = {}
        patches = [[seen.setdefault(text, len(seen)) for text in item["patches"]] for item in items]
        ids = [self._encoder.ids(text) for text in seen]
        texts = np.full((-(-len(ids) // _TEXTS_STEP) * _TEXTS_STEP, max(map(len, ids))), -1)
        for row, text in zip(texts, ids, strict=False):
            row[: len(text)] = text
        return super().__call__(items) | {"patch_texts": torch.from_numpy(texts), "patches": torch.tensor(patches)}


def scene_dialogues(
    texts: Sequence[dict[str, Any]], groups: int, params: LanguageParams, rng: random.Random
) -> list[list[tuple[str, list[str]]]]:
    """Dialogues of (question, answer sentences) of a scene with ``groups``, the same for every grounding: the beginning
    of a description; of a share of the scenes also questions, or a complete description.

    Beginnings practise naming what a patch shows, questions practise finding the patches of an object.
    """
    described = [text for text in texts if text["task"] in _DESCRIPTIONS]
    asked = [text for text in texts if text["task"] not in _DESCRIPTIONS]
    first, complete = rng.sample(described, 2)
    dialogues = [[(first["question"], first["answer"][:groups])]]
    draw = rng.random()
    if draw < params.question_share:
        chosen = rng.sample(asked, min(params.questions, len(asked)))
        dialogues.append([(text["question"], text["answer"]) for text in chosen])
    elif draw < params.question_share + params.description_share:
        dialogues.append([(complete["question"], complete["answer"])])
    return dialogues


def text_samples(
    params: LanguageParams, grid: int, encoder: Encoder, seed: int, kinds: Sequence[str]
) -> tuple[list[Sample], list[list[str]]]:
    """Samples and, for grounding slots, their patch texts, whose mistakes are from ``kinds``; see scene_dialogues."""
    samples: list[Sample] = []
    patches = []
    for number, row in enumerate(read_rows("train", ["scene", "texts"], params.scenes)):
        rng = random.Random(f"{seed}/grounding/{number}")
        scene = Scene.from_json(row["scene"])
        slots = params.grounding == "slots"
        for turns in scene_dialogues(row["texts"], len(scene.groups), params, random.Random(f"{seed}/texts/{number}")):
            (question, answer), *others = turns
            if slots:
                question = with_image(question)
                patches.append(patch_texts(scene, grid, params.patch_noise, rng, kinds))
            elif params.grounding == "context":
                question = scene_context(scene, rng) + question
            samples.append(([number] if slots else [], *encoder.dialogue([(question, answer), *others])))
    return samples, patches


def patch_embeddings(table: nn.Module, batch: dict[str, Any], noise: float) -> Tensor:
    """Embeddings [S, P, D] of the patch texts of S samples, with Gaussian noise.

    The noise's standard deviation is drawn for each sample, between 0 and ``noise`` times that of the embeddings. The
    decoder learns from samples with little noise to find an object by its name; with equal noise in all samples it did
    not learn it in as many steps.
    """
    present = (batch["patch_texts"] >= 0).unsqueeze(-1)
    sums = (table(batch["patch_texts"].clamp(min=0)) * present).sum(1)  # [U, D]
    # A product instead of an index: the backward pass of an index adds row by row.
    chosen = nn.functional.one_hot(batch["patches"], len(sums)).to(sums.dtype)  # [S, P, U]
    shown = chosen @ sums  # [S, P, D]
    strength = noise * torch.rand(len(shown), 1, 1, device=shown.device)
    return shown + strength * shown.detach().std() * torch.randn_like(shown)


def hidden_states(
    model: LlamaForCausalLM, batch: dict[str, Any], image_id: int, noise: float, target_positions: Tensor
) -> Tensor:
    """Hidden states [N, D] of a pack at ``target_positions`` [N]; see patch_embeddings for packs with patch texts."""
    embeddings = model.get_input_embeddings()(batch["input_ids"])
    if "patches" in batch:
        mask = (batch["input_ids"] == image_id).unsqueeze(-1)
        shown = patch_embeddings(model.get_input_embeddings(), batch, noise)
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
    """The first token of an answer that says yes, and of one that says no: [2]."""
    return torch.tensor([encoder.ids("有，")[0], encoder.ids("没有，")[0]])


def yes_no_positions(labels: Tensor, yes_no_tokens: Tensor) -> Tensor:
    """Mask [1, N] of the labels that are the first of an answer, and one of ``yes_no_tokens``."""
    begins = labels != IGNORED
    begins[:, 1:] &= labels[:, :-1] == IGNORED
    return begins & torch.isin(labels, yes_no_tokens)


def language_loss(
    model: LlamaForCausalLM,
    batch: dict[str, Any],
    image_id: int,
    noise: float,
    yes_no_tokens: Tensor,
    yes_no_weight: float,
) -> Tensor:
    """Cross-entropy of the answers, with yes/no tokens up-weighted by ``yes_no_weight``, over
    ``batch["num_items_in_batch"]``."""
    labels = batch["labels"]
    targets = Targets.of(labels)
    hidden = hidden_states(model, batch, image_id, noise, targets.positions)
    loss, logits = target_loss(hidden, targets, model.lm_head, batch["num_items_in_batch"])
    yes_no = yes_no_positions(labels, yes_no_tokens.to(labels.device))[:, 1:]
    among_targets = yes_no[labels[:, 1:] != IGNORED]
    extra = nn.functional.cross_entropy(logits[among_targets], labels[:, 1:][yes_no], reduction="sum")
    return loss + (yes_no_weight - 1) * extra / batch["num_items_in_batch"]


def save_language_model(
    model: LlamaForCausalLM, weights: dict[str, Tensor] | None = None, provenance: Provenance | None = None
) -> None:
    with atomic_directory(LANGUAGE) as folder:
        model.save_pretrained(folder, state_dict=weights)
        if provenance is not None:
            write_provenance(folder, provenance)


def fetched_language_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """MiniMind's weights, converted. Raises InputError where they do not fit the tokenizer."""
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
    yes_no_tokens = yes_no_ids(encoder)
    grid = params.data.image_size // params.vision.patch_size
    samples, patches = text_samples(params.language, grid, encoder, params.seed, tuple(KINDS)[: params.data.kinds])
    length = pack_length(params.language.batch_tokens)
    if params.language.grounding == "slots":
        dataset = PatchTextDataset(samples, patches, image_id)
        collate = PatchTextCollate(tokenizer.pad_token_id, length, encoder)
    else:
        dataset = SampleDataset(samples, None, grid * grid, image_id)
        collate = PackCollate(tokenizer.pad_token_id, length)
    tokens, targets = sum(dataset.lengths), sum(dataset.targets)
    if is_main_process():
        print(f"language: {len(dataset)} samples, {tokens} tokens, {targets} of them targets, in an epoch", flush=True)
    # Without a picture the right answer to a yes/no question is often unknown: there is nothing to stress.
    yes_no_weight = 1.0 if params.language.grounding == "blind" else params.language.yes_no_weight
    check_positions(dataset, params.language.max_position_embeddings)
    torch.manual_seed(params.seed)
    model = build_language_model(params.language, len(tokenizer), encoder)
    use_packed_attention(model)
    use_target_positions(model.model)
    train(
        "language",
        model,
        dataset,
        collate,
        plan_batches(dataset.lengths, params.language.batch_tokens, None, params.language.epochs, True, params.seed),
        params.language,
        params,
        [params.seed, grid, params.language.model_dump(), SHARDS, TOKENIZER],
        save=lambda _, weights, provenance: save_language_model(model, weights, provenance),
        loss_of=lambda model, batch: language_loss(
            model, batch, image_id, params.language.noise, yes_no_tokens, yes_no_weight
        ),
    )


if __name__ == "__main__":
    run_stage(run_distributed(main, "stages.language"))
