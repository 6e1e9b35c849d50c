"""Greedy answers, losses and hidden states of one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from model.vlm.attention import packed_attention_in
from model.vlm.modeling import VlmForConditionalGeneration
from stages.common.data.chat import IGNORED, IMAGE, Encoder
from stages.common.data.features import Pictures
from stages.common.data.packing import PackCollate, SampleDataset
from stages.common.data.samples import Sample, Samples, count_targets
from stages.evaluate.answer.generation import FeaturesOf, Prompt, generate, prefill


@dataclass(frozen=True)
class Question:
    """A question with `<image>` where a picture stands, and the numbers of these pictures in the split."""

    pictures: tuple[int, ...]
    prompt: str


class Answerer:
    """Answers questions about pictures; sampling is off, so answers repeat exactly. Computes in float32."""

    def __init__(self, model: VlmForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, batch_size: int) -> None:
        self.model, self._tokenizer, self._batch_size = model.eval(), tokenizer, batch_size
        self.encoder = Encoder(tokenizer)

    def length(self, question: Question) -> int:
        """Positions that a question takes, image tokens included."""
        more = self.model.config.image_tokens - 1
        return len(self.encoder.prompt(question.prompt)) + more * len(question.pictures)

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], pictures: Pictures, max_new_tokens: int, label: str) -> list[str]:
        answers: list[str] = []
        with tqdm(total=len(questions), unit="answer", desc=label) as bar:
            for prompts in self._batches(questions):
                ids = generate(self.model, prompts, self._features_of(pictures), max_new_tokens, self.encoder.end_id)
                answers += self._tokenizer.batch_decode(ids, skip_special_tokens=True)
                bar.update(len(prompts))
        return answers

    @torch.inference_mode()
    def hidden_states(self, questions: Sequence[Question], pictures: Pictures, label: str) -> np.ndarray:
        """The decoder's hidden state at each question's last position, where the answer begins: [N, layers + 1, D],
        float16. Layer 0 is the embedding, the last one is after the final norm."""
        config = self.model.config.text_config
        found = np.zeros((len(questions), config.num_hidden_layers + 1, config.hidden_size), np.float16)
        largest = np.finfo(np.float16).max
        with tqdm(total=len(questions), unit="question", desc=label) as bar:
            for prompts in self._batches(questions):
                hidden = torch.stack(prefill(self.model, prompts, self._features_of(pictures)).hidden, 1)
                found[bar.n : bar.n + len(prompts)] = hidden.float().clamp(-largest, largest).cpu().numpy()
                bar.update(len(prompts))
        return found

    @torch.inference_mode()
    def target_losses(self, samples: Sequence[Sample], pictures: Pictures, label: str) -> list[np.ndarray]:
        """Cross-entropy, in nats, of each target token in turn, an array [targets] of float32 per sample."""
        image_id = self.encoder.token_id(IMAGE)
        dataset = SampleDataset(Samples.of(samples), pictures, self.model.config.image_tokens, image_id)
        collate = PackCollate(self._tokenizer.pad_token_id, None)
        # Samples of similar length together: their attention is computed in few products.
        order = np.argsort(dataset.lengths, kind="stable")
        losses: list[np.ndarray] = [np.zeros(0, np.float32)] * len(dataset)
        with packed_attention_in(self.model), tqdm(total=len(dataset), unit="text", desc=label) as bar:
            for start in range(0, len(order), self._batch_size):
                numbers = order[start : start + self._batch_size].tolist()
                items = [dataset[number] for number in numbers]
                batch = {
                    key: value.to(self.model.device) if isinstance(value, Tensor) else value
                    for key, value in collate(items).items()
                }
                logits = self.model(**batch, num_items_in_batch=1).logits  # [targets of all, V]
                labels = batch["labels"][batch["labels"] != IGNORED]
                nats = cross_entropy(logits, labels, reduction="none").cpu().numpy()
                ends = np.cumsum([count_targets(item["labels"][1:]) for item in items])
                for number, found in zip(numbers, np.split(nats, ends[:-1]), strict=True):
                    losses[number] = found
                bar.update(len(items))
        return losses

    def _batches(self, questions: Sequence[Question]) -> list[list[Prompt]]:
        prompts = [Prompt(self.encoder.prompt(question.prompt), question.pictures) for question in questions]
        return [prompts[start : start + self._batch_size] for start in range(0, len(prompts), self._batch_size)]

    def _features_of(self, pictures: Pictures) -> FeaturesOf:
        """Patch features of pictures, or of what the cache holds of them."""

        def features(numbers: Sequence[int]) -> Tensor:
            shown = torch.from_numpy(pictures[numbers]).float().to(self.model.device)
            return shown if pictures.key == "patch_features" else self.model.patch_features(shown)

        return features
