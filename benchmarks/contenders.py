"""Three implementations of training one model on the same samples; each is measured on request.

- ``reference``: as MiniMind-V (April 2025) did it. Every picture goes through CLIP in every step, every sample is
  padded to 640 (pretraining) or 1536 tokens, logits are computed everywhere; float32 on a CPU, float16 on a GPU.
- ``stock``: ``LlavaForConditionalGeneration`` in ``transformers.Trainer``, padded to the batch's longest sample.
- ``ours``: what the stages pretrain and sft do.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import LlavaConfig, LlavaForConditionalGeneration, Trainer, TrainingArguments
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from benchmarks import flops
from benchmarks.material import DECODER, IMAGE_TOKENS, PAD_ID, VISION, Material, Task, freeze, network
from model.vlm.attention import use_packed_attention
from model.vlm.configuration import vlm_config
from stages.common.core.memory import peak_memory
from stages.common.data.batches import plan_batches
from stages.common.data.chat import IGNORED
from stages.common.data.features import CachedFeatures, features_path
from stages.common.data.packing import PackCollate, SampleDataset
from stages.common.training.loop import train
from stages.common.training.precision import use_bf16

BATCH_SIZE = {"pretrain": 16, "sft": 4}  # samples per step of reference and stock
PADDED = {"pretrain": 640, "sft": 1536}  # tokens
BATCH_TOKENS = {"pretrain": 4096, "sft": 8192}  # per step of ours, as in presets/minimind.args
_OF_LLAVA = {  # of our configuration; LLaVA's own projector is an MLP
    *("vision_config", "text_config", "image_token_index", "image_seq_length"),
    *("vision_feature_layer", "vision_feature_select_strategy", "tie_word_embeddings"),
}


class StepTimer:
    """Measures ``steps`` training steps per request, then waits for the next request."""

    def __init__(self, connection: Connection, material: Material, frozen: bool, pixels: bool) -> None:
        self.steps = 8 if torch.cuda.is_available() else 1  # steps on a GPU are short
        self._connection, self._material = connection, material
        self._frozen, self._pixels = frozen, pixels
        self._numbers: list[list[int]] = []
        self._since: float | None = None

    def step(self, numbers: Sequence[int]) -> None:
        """To be called with the samples of each batch before it is used."""
        if self._since is None or len(self._numbers) == self.steps:
            if self._since is not None:
                self._connection.send(self._measured())
            if self._connection.recv() is None:
                sys.exit()
            self._numbers, self._since = [], time.perf_counter()
        self._numbers.append(list(numbers))

    def _measured(self) -> dict[str, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._since
        sizes = self._material.sizes([number for batch in self._numbers for number in batch])
        peak = peak_memory()
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated()
        return {
            "seconds": seconds,
            "samples": len(sizes),
            "target_tokens": sum(targets for _, targets in sizes),
            "operations": flops.training(DECODER, VISION, sizes, self._frozen, self._pixels),
            "peak_memory": peak,
        }


def run(name: str, task: Task, folder: Path, load: Callable[[], Material], connection: Connection) -> None:
    """Sends how many target tokens there are to learn, and then a measurement for each message that is not None."""
    material = load()
    connection.send(material.target_tokens)
    timer = StepTimer(connection, material, task == "pretrain", pixels=name != "ours")
    {"reference": reference, "stock": stock, "ours": ours}[name](task, material, timer, folder)


class Pixels:
    """CLIP's inputs, decoded in advance: with enough loading workers, decoding would take no extra time."""

    def __init__(self, material: Material) -> None:
        self._shown = [pictures[0] for pictures, *_ in material.samples]
        processor = CLIPImageProcessorPil()
        pictures = (Image.open(io.BytesIO(image)).convert("RGB") for image in material.images)
        self._decoded = [processor(picture, return_tensors="pt")["pixel_values"][0] for picture in pictures]

    def __getitem__(self, numbers: Sequence[int]) -> torch.Tensor:
        """Pixels [B, 3, 224, 224] of these samples."""
        return torch.stack([self._decoded[self._shown[number]] for number in numbers])


def padded(material: Material, numbers: Sequence[int], length: int | None) -> dict[str, torch.Tensor]:
    """input_ids, labels and attention_mask [B, T], T being ``length`` or the longest sample's."""
    rows = [SampleDataset(material.samples, None, IMAGE_TOKENS, material.image_id)[number] for number in numbers]
    length = length or max(len(row["input_ids"]) for row in rows)
    batch = {name: np.full((len(rows), length), fill) for name, fill in (("input_ids", PAD_ID), ("labels", IGNORED))}
    mask = np.zeros((len(rows), length), np.int64)
    for line, row in enumerate(rows):
        for name, values in batch.items():
            values[line, : len(row[name])] = row[name]
        mask[line, : len(row["input_ids"])] = 1
    return {name: torch.from_numpy(values) for name, values in batch.items()} | {
        "attention_mask": torch.from_numpy(mask)
    }


def reference(task: Task, material: Material, timer: StepTimer, folder: Path) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = network(material.image_id, task).to(device)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-6)
    scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
    pixels = Pixels(material)
    size, first = BATCH_SIZE[task], 0
    while True:
        numbers = [number % len(material.samples) for number in range(first, first + size)]
        first += size
        timer.step(numbers)
        batch = {name: values.to(device) for name, values in padded(material, numbers, PADDED[task]).items()}
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):
            with torch.no_grad():
                seen = model.patch_features(pixels[numbers].to(device))
            hidden = model.model.language_model(inputs_embeds=model.embed(batch["input_ids"], seen)).last_hidden_state
            logits = model.lm_head(hidden)
            targets = batch["labels"][:, 1:].flatten()
            mask = (targets != IGNORED).float()
            losses = cross_entropy(logits[:, :-1].flatten(0, 1), targets.clamp(min=0), reduction="none")
            loss = (losses * mask).sum() / mask.sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        loss.item()


class Numbers(Dataset):
    """Samples by number; the collator does the work."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> int:
        return index


def stock(task: Task, material: Material, timer: StepTimer, folder: Path) -> None:
    own = vlm_config(VISION, DECODER, "linear", material.image_id).to_dict()
    model = LlavaForConditionalGeneration(LlavaConfig(**{name: own[name] for name in own if name in _OF_LLAVA}))
    freeze(model, task)
    timer.steps *= 4  # batches are padded to their longest sample, so times vary
    pixels = Pixels(material)

    def collate(numbers: list[int]) -> dict[str, torch.Tensor]:
        timer.step(numbers)
        return padded(material, numbers, None) | {"pixel_values": pixels[numbers]}

    arguments = TrainingArguments(
        output_dir=str(folder / f"stock-{task}"),
        per_device_train_batch_size=BATCH_SIZE[task],
        max_steps=10**6,
        save_strategy="no",
        bf16=use_bf16("auto"),
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    Trainer(model=model, args=arguments, train_dataset=Numbers(len(material.samples)), data_collator=collate).train()


def ours(task: Task, material: Material, timer: StepTimer, folder: Path) -> None:
    model = network(material.image_id, task)
    features = CachedFeatures(np.load(features_path("train", folder), mmap_mode="r"))
    dataset = SampleDataset(material.samples, features, IMAGE_TOKENS, material.image_id)
    budget = BATCH_TOKENS[task]
    use_packed_attention(model)
    params = material.params
    loop = (params.pretrain if task == "pretrain" else params.sft).model_copy(update={"epochs": 2000})
    plan = plan_batches(dataset.lengths, budget, None, loop.epochs, True, params.seed)
    timer.steps *= plan.epoch_starts[1]  # a pack holds samples of similar length: measure all packs of an epoch
    batches, forward = iter(plan.batches), model.forward

    def loss_of(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        timer.step(next(batches))
        return forward(**batch).loss

    collate = PackCollate(PAD_ID, budget)
    train(task, model, dataset, collate, plan, loop, params, [], save=lambda *_: None, loss_of=loss_of)
