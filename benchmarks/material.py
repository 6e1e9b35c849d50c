"""Training material of all contenders: scenes of the built-in world at 224 pixels, texts, models of one size."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import CLIPVisionConfig, LlamaConfig

from model.vlm.configuration import vlm_config
from model.vlm.modeling import VlmForConditionalGeneration
from stages.common.config.params import Params, load_params
from stages.common.core.paths import SHARDS
from stages.common.data.chat import IMAGE, Encoder, with_image
from stages.common.data.samples import Sample, count_targets
from stages.common.data.shards import read_images, read_rows
from stages.prepare.world import write_world
from stages.tokenizer import corpus, train_tokenizer

ROOT = Path(__file__).parents[1]
SIDE = 224
IMAGE_TOKENS = 196
VOCABULARY = 6400
PAD_ID = 0

Task = Literal["pretrain", "sft"]
CHARACTERS = {"pretrain": (10, 40), "sft": (60, 300)}  # least and greatest length of an answer

VISION = CLIPVisionConfig(
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    image_size=SIDE,
    patch_size=16,
)
DECODER = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=512,
    intermediate_size=1408,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=2,
    max_position_embeddings=2048,
    rope_theta=1e6,
    rms_norm_eps=1e-5,
)


@dataclass(frozen=True)
class Material:
    """``samples`` have one picture each, by its number in ``images``, which are encoded PNG files."""

    params: Params
    samples: list[Sample]
    images: list[bytes]
    image_id: int

    @property
    def target_tokens(self) -> int:
        return sum(count_targets(labels) for _, _, labels in self.samples)

    def sizes(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """(tokens with image tokens, target tokens) of these samples."""
        found = (self.samples[number] for number in numbers)
        return [(len(ids) - 1 + IMAGE_TOKENS, count_targets(labels)) for _, ids, labels in found]


def draw(folder: Path, scenes: int) -> None:
    """Write scenes into ``folder``, which must be the working directory of code that reads them."""
    shutil.copytree(ROOT / "data/eval", folder / "data/eval")
    (folder / SHARDS).mkdir(parents=True)
    params = load_params(ROOT / "params.yaml")
    data = params.data.model_copy(
        update={"image_size": SIDE, "train_scenes": scenes, "validation_scenes": 1, "test_scenes": 1}
    )
    os.chdir(folder)
    write_world(params.model_copy(update={"data": data}), SHARDS)


def load(task: Task) -> Material:
    """One sample of each scene in the working directory that has an answer of the task's length.

    Each character is one token; MiniMind2's own tokenizer has 1.04 characters per token on these texts.
    """
    params = load_params(ROOT / "params.yaml")
    wandb = params.wandb.model_copy(update={"mode": "disabled"})
    train = params.train.model_copy(update={"save_steps": 10**6})
    shape = params.tokenizer.model_copy(update={"vocab_size": VOCABULARY, "max_token_length": 1})
    encoder = Encoder(train_tokenizer(corpus(500), shape))
    least, most = CHARACTERS[task]
    samples: list[Sample] = []
    for number, row in enumerate(read_rows("train", ["texts"])):
        for text in row["texts"]:
            answer = list(text["answer"])
            while len("".join(answer)) > most:
                answer.pop()
            if text["task"] == ("caption" if task == "pretrain" else "description") and len("".join(answer)) >= least:
                samples.append(([number], *encoder.dialogue([(with_image(text["question"]), answer)])))
                break
    images = [image["bytes"] for image in read_images("train")]
    params = params.model_copy(update={"wandb": wandb, "train": train})
    return Material(params, samples, images, encoder.token_id(IMAGE))


def network(image_id: int, task: Task) -> VlmForConditionalGeneration:
    """An untrained model: speed does not depend on the weights' values."""
    torch.manual_seed(0)
    model = VlmForConditionalGeneration(vlm_config(VISION, DECODER, "linear", image_id))
    freeze(model, task)
    return model


def freeze(model: torch.nn.Module, task: Task) -> None:
    """Freeze the parts of a LLaVA that this task does not train."""
    model.requires_grad_(task == "sft")
    model.model.vision_tower.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
