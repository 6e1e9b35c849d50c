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

from model.vlm.modeling import VlmForConditionalGeneration
from stages.common.data.chat import IGNORED, Encoder
from stages.common.data.features import MeanPicture, Pictures
from stages.common.data.samples import Sample
from stages.evaluate.answer.generation import generate
from stages.evaluate.answer.prefill import FeaturesOf, Prompt, begin, prefill

BLIND = -1  # in place of a picture's number: the blind picture
_TOGETHER = 3  # batches of texts whose shared beginnings are computed together


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
        features_of = self._features_of(pictures)
        answers: list[str] = []
        for prompts in self._batches(questions, label):
            ids = generate(self.model, prompts, features_of, max_new_tokens, self.encoder.end_id)
            answers += self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        return answers

    @torch.inference_mode()
    def hidden_states(self, questions: Sequence[Question], pictures: Pictures, label: str) -> np.ndarray:
        """The decoder's hidden state at each question's last position, where the answer begins: [N, layers + 1, D],
        float16. Layer 0 is the embedding, the last one is after the final norm."""
        features_of = self._features_of(pictures)
        config, largest = self.model.config.text_config, torch.finfo(torch.float16).max
        found = [torch.zeros(0, config.num_hidden_layers + 1, config.hidden_size, dtype=torch.float16)]
        for prompts in self._batches(questions, label):
            beginning = begin(self.model, prompts, features_of)
            layers = prefill(self.model, beginning, prompts, features_of, all_layers=True).hidden
            hidden = torch.stack([layer[:, -1] for layer in layers], 1)
            found.append(hidden.float().clamp(-largest, largest).half().cpu())
        return torch.cat(found).numpy()

    @torch.inference_mode()
    def target_losses(
        self, samples: Sequence[Sample], pictures: Pictures, label: str, blind: MeanPicture | None = None
    ) -> list[np.ndarray]:
        """Cross-entropy, in nats, of each target token in turn, an array [targets] of float32 per sample.

        Samples that follow one another share what they can: put those about the same pictures together. A picture
        BLIND is ``blind``.
        """
        features_of = self._features_of(pictures, blind)
        losses: list[np.ndarray] = []
        size = _TOGETHER * self._batch_size
        with tqdm(total=len(samples), unit="text", desc=label) as bar:
            for start in range(0, len(samples), size):
                losses += self._losses_of(samples[start : start + size], features_of, bar)
        return losses

    def _losses_of(self, samples: Sequence[Sample], features_of: FeaturesOf, bar: tqdm) -> list[np.ndarray]:
        labels = [np.asarray(sample[2]) for sample in samples]
        targets = [1 + np.flatnonzero(row[1:] != IGNORED) for row in labels]  # nothing predicts a first token
        # Nothing after the last target counts, and the last target itself is only predicted.
        ends = [int(places[-1]) if len(places) else 1 for places in targets]
        prompts = [
            Prompt([int(i) for i in ids[:end]], [int(number) for number in pictures])
            for (pictures, ids, _), end in zip(samples, ends, strict=True)
        ]
        image_id = self.model.config.image_token_index
        prompts = [Prompt(ids, numbers[: ids.count(image_id)]) for ids, numbers in prompts]
        # The position before the first target is not shared, because its hidden state is needed.
        first = min((int(places[0]) - 1 for places in targets if len(places)), default=0)
        beginning = begin(self.model, prompts, features_of, first)
        losses = [np.zeros(0, np.float32)] * len(samples)
        order = np.argsort([len(prompt.ids) for prompt in prompts], kind="stable")  # little to fill up
        for start in range(0, len(order), self._batch_size):
            numbers = order[start : start + self._batch_size].tolist()
            hidden = prefill(self.model, beginning, [prompts[number] for number in numbers], features_of).hidden[-1]
            # Counted from the end, where all prompts of the batch end together.
            places = [hidden.shape[1] - self._positions_after(prompts[n].ids, targets[n]) for n in numbers]
            rows = np.repeat(np.arange(len(numbers)), [len(part) for part in places])
            columns = torch.from_numpy(np.concatenate(places)).to(hidden.device)
            logits = self.model.lm_head(hidden[torch.from_numpy(rows).to(hidden.device), columns]).float()
            tokens = torch.from_numpy(np.concatenate([labels[n][targets[n]] for n in numbers]).astype(np.int64))
            nats = cross_entropy(logits, tokens.to(logits.device), reduction="none").cpu().numpy()
            bounds = np.cumsum([len(part) for part in places])[:-1]
            for number, found in zip(numbers, np.split(nats, bounds), strict=True):
                losses[number] = found
            bar.update(len(numbers))
        return losses

    def _positions_after(self, ids: Sequence[int], targets: np.ndarray) -> np.ndarray:
        """How many positions from the end of ``ids``, image tokens included, each target's predecessor stands: 1 is
        the last."""
        widths = np.where(np.asarray(ids) == self.model.config.image_token_index, self.model.config.image_tokens, 1)
        ends = widths.cumsum()
        return ends[-1] - ends[targets - 1] + 1

    def _batches(self, questions: Sequence[Question], label: str) -> Iterator[list[Prompt]]:
        prompts = [Prompt(self.encoder.prompt(question.prompt), question.pictures) for question in questions]
        with tqdm(total=len(questions), unit="question", desc=label) as bar:
            for start in range(0, len(prompts), self._batch_size):
                yield prompts[start : start + self._batch_size]
                bar.update(min(self._batch_size, len(prompts) - start))

    def _features_of(self, pictures: Pictures, blind: MeanPicture | None = None) -> FeaturesOf:
        """Patch features of pictures, or of what the cache holds of them."""

        def features(numbers: Sequence[int]) -> Tensor:
            shown = [number for number in numbers if number != BLIND]
            if len(shown) == len(numbers):
                return encoded(shown)
            found = torch.tensor(blind[numbers], device=self.model.device)
            if shown:
                found[torch.tensor([number != BLIND for number in numbers], device=found.device)] = encoded(shown)
            return found

        def encoded(numbers: Sequence[int]) -> Tensor:
            found = torch.from_numpy(pictures[numbers]).float().to(self.model.device)
            return found if pictures.key == "patch_features" else self.model.patch_features(found)

        return features
