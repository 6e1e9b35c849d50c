"""Greedy answers, losses and hidden states of one checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from model.vlm.attention import packed_attention_in
from model.vlm.modeling import VlmForConditionalGeneration
from stages.common.data.batches import plan_batches
from stages.common.data.chat import IGNORED, IMAGE, Encoder
from stages.common.data.features import MeanPicture, Pictures, load_pictures
from stages.common.data.packing import PackCollate, SampleDataset
from stages.common.data.samples import Sample, count_targets
from stages.evaluate.answer.generation import generate

BLIND = -1  # in place of a picture's number: the blind picture
_PACK_TOKENS = 4096  # of texts whose losses are computed together


@dataclass(frozen=True)
class Question:
    """A question with `<image>` where a picture stands, and the numbers of these pictures in the split."""

    pictures: tuple[int, ...]
    prompt: str


class PatchFeatures:
    """Patch features [N, P, D_vision] of pictures by their numbers: cached ones, or computed from pixels. BLIND is the
    picture ``blind``."""

    key = "patch_features"

    def __init__(
        self, model: VlmForConditionalGeneration, pictures: Pictures, blind: MeanPicture | None = None
    ) -> None:
        self._model, self._pictures, self._blind = model, pictures, blind

    def __getitem__(self, numbers: Sequence[int]) -> np.ndarray:
        numbers = np.asarray(numbers, np.int64)
        if not (numbers == BLIND).any():
            return self._of_pictures(numbers)
        features = self._blind[numbers].copy()
        shown = numbers != BLIND
        features[shown] = self._of_pictures(numbers[shown])
        return features

    @torch.inference_mode()
    def _of_pictures(self, numbers: np.ndarray) -> np.ndarray:
        found = self._pictures[numbers].astype(np.float32)
        if self._pictures.key == self.key:
            return found
        if not len(found):
            vision = self._model.config.vision_config
            return np.zeros((0, (vision.image_size // vision.patch_size) ** 2, vision.hidden_size), np.float32)
        return self._model.patch_features(torch.from_numpy(found).to(self._model.device)).cpu().numpy()


class Answerer:
    """Answers questions about pictures; sampling is off, so answers repeat exactly. Computes in float32."""

    def __init__(self, model: VlmForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, batch_size: int) -> None:
        self.model, self._tokenizer, self._batch_size = model.eval(), tokenizer, batch_size
        self.encoder = Encoder(tokenizer)
        self._image_id = self.encoder.token_id(IMAGE)

    def length(self, question: Question) -> int:
        """Positions that a question takes, image tokens included."""
        return len(self._prompt_ids(question))

    def pictures(self, split: str, cache: bool) -> Pictures:
        """The pictures of a split, at the size that the model takes; ``cache``: their cached features."""
        return load_pictures(split, cache, self.model.config.vision_config.image_size)

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], pictures: Pictures, max_new_tokens: int, label: str) -> list[str]:
        answers = [""] * len(questions)
        for numbers, embeddings, mask in self._batches(questions, pictures, label):
            ids = generate(self.model, embeddings, mask, max_new_tokens, self.encoder.end_id)
            for number, text in zip(numbers, self._tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
                answers[number] = text
        return answers

    @torch.inference_mode()
    def hidden_states(self, questions: Sequence[Question], pictures: Pictures, label: str) -> np.ndarray:
        """The decoder's hidden state at each question's last position, where the answer begins: [N, layers + 1, D],
        float16. Layer 0 is the embedding, the last one is after the final norm."""
        config, largest = self.model.config.text_config, torch.finfo(torch.float16).max
        found = torch.zeros(len(questions), config.num_hidden_layers + 1, config.hidden_size, dtype=torch.float16)
        for numbers, embeddings, mask in self._batches(questions, pictures, label):
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            layers = self.model.model.language_model(
                inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, output_hidden_states=True
            ).hidden_states
            hidden = torch.stack([layer[:, -1] for layer in layers], 1)
            found[numbers] = hidden.float().clamp(-largest, largest).half().cpu()
        return found.numpy()

    @torch.inference_mode()
    def target_losses(
        self, samples: Sequence[Sample], pictures: Pictures, label: str, blind: MeanPicture | None = None
    ) -> list[np.ndarray]:
        """Cross-entropy, in nats, of each target token in turn, an array [targets] of float32 per sample.

        A picture BLIND is ``blind``.
        """
        config, device = self.model.config, self.model.device
        dataset = SampleDataset(
            samples, PatchFeatures(self.model, pictures, blind), config.image_tokens, self._image_id
        )
        collate = PackCollate(self._tokenizer.pad_token_id, _PACK_TOKENS)
        losses = [np.zeros(0, np.float32)] * len(samples)
        with packed_attention_in(self.model), tqdm(total=len(samples), unit="text", desc=label) as bar:
            for numbers in plan_batches(dataset.lengths, _PACK_TOKENS, None, 1, True, 0) if samples else ():
                items = [dataset[number] for number in numbers]
                pack = {
                    name: value.to(device) if isinstance(value, Tensor) else value
                    for name, value in collate(items).items()
                }
                logits = self.model(**pack).logits  # [targets, V]
                nats = cross_entropy(logits, pack["labels"][pack["labels"] != IGNORED], reduction="none").cpu().numpy()
                ends = np.cumsum([count_targets(item["labels"][1:]) for item in items])
                for number, found in zip(numbers, np.split(nats, ends[:-1]), strict=True):
                    losses[number] = found
                bar.update(len(items))
        return losses

    def _prompt_ids(self, question: Question) -> list[int]:
        """Each picture's placeholder is repeated once per image token."""
        times = self.model.config.image_tokens
        ids = self.encoder.prompt(question.prompt)
        return [token for i in ids for token in [i] * (times if i == self._image_id else 1)]

    def _batches(
        self, questions: Sequence[Question], pictures: Pictures, label: str
    ) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Batches of questions of similar length: their numbers, left-padded embeddings [B, T, D], and mask [B, T]."""
        features, device = PatchFeatures(self.model, pictures), self.model.device
        rows = [self._prompt_ids(question) for question in questions]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        with tqdm(total=len(rows), unit="question", desc=label) as bar:
            for start in range(0, len(order), self._batch_size):
                numbers = order[start : start + self._batch_size]
                longest = max(len(rows[number]) for number in numbers)
                padding = [longest - len(rows[number]) for number in numbers]
                pad_id = self._tokenizer.pad_token_id
                ids = [[pad_id] * left + rows[number] for left, number in zip(padding, numbers, strict=True)]
                mask = torch.arange(longest) >= torch.tensor(padding).unsqueeze(1)
                shown = [picture for number in numbers for picture in questions[number].pictures]
                seen = torch.from_numpy(features[shown]).to(device) if shown else None
                yield numbers, self.model.embed(torch.tensor(ids, device=device), seen), mask.long().to(device)
                bar.update(len(numbers))
