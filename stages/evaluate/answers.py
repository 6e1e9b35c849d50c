"""Greedy answers, yes/no margins and losses of one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from model.vlm.attention import packed_attention_in
from model.vlm.modeling import VlmForConditionalGeneration
from stages.common.data.batches import plan_batches
from stages.common.data.chat import IGNORED, IMAGE, Encoder
from stages.common.data.features import Pictures
from stages.common.data.packing import PackCollate, SampleDataset
from stages.common.data.samples import Samples, count_targets


@dataclass(frozen=True)
class Question:
    """A question with `<image>` where a picture stands, and the numbers of these pictures in the split."""

    pictures: tuple[int, ...]
    prompt: str


class Answerer:
    """Answers questions about pictures; sampling is off, so answers repeat exactly."""

    def __init__(self, model: VlmForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, batch_size: int) -> None:
        self.model, self._tokenizer, self._batch_size = model.eval(), tokenizer, batch_size
        self.encoder = Encoder(tokenizer)

    def length(self, question: Question) -> int:
        """Positions that a question takes, image tokens included."""
        return len(self._prompt_ids(question.prompt))

    def _prompt_ids(self, prompt: str) -> list[int]:
        image_id = self.encoder.token_id(IMAGE)
        times = self.model.config.image_tokens
        return [token for i in self.encoder.prompt(prompt) for token in [i] * (times if i == image_id else 1)]

    def _seen(self, questions: Sequence[Question], pictures: Pictures) -> Tensor | None:
        """Patch features of the questions' pictures in order: [N, P, D]."""
        numbers = [number for question in questions for number in question.pictures]
        if not numbers:
            return None
        return self._features(torch.from_numpy(pictures[numbers]), pictures.key)

    def _embed(self, rows: Sequence[list[int]], seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Left-padded embeddings [B, T, D] and their mask [B, T]."""
        longest = max(map(len, rows))
        device = self.model.device
        ids = torch.tensor([[self._tokenizer.pad_token_id] * (longest - len(r)) + r for r in rows], device=device)
        mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows], device=device)
        return self.model.embed(ids, seen), mask

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], pictures: Pictures, max_new_tokens: int, label: str) -> list[str]:
        answers: list[str] = []
        with tqdm(total=len(questions), unit="answer", desc=label) as bar:
            for start in range(0, len(questions), self._batch_size):
                part = questions[start : start + self._batch_size]
                embeds, mask = self._embed([self._prompt_ids(q.prompt) for q in part], self._seen(part, pictures))
                out = self.model.generate(
                    inputs_embeds=embeds,
                    attention_mask=mask,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    eos_token_id=self.encoder.end_id,
                    pad_token_id=self._tokenizer.pad_token_id,
                )
                answers += self._tokenizer.batch_decode(out, skip_special_tokens=True)
                bar.update(len(part))
        return answers

    def margins(self, questions: Sequence[Question], pictures: Pictures, yes: str, no: str, label: str) -> list[float]:
        """log p(yes) - log p(no) as the first words of the answer."""
        prompts = [self.encoder.prompt(question.prompt) for question in questions]
        words = [self.encoder.ids(word) for word in (yes, no)]
        samples = Samples.of(
            (question.pictures, prompt + word, [IGNORED] * len(prompt) + word)
            for question, prompt in zip(questions, prompts, strict=True)
            for word in words
        )
        image_id = self.encoder.token_id(IMAGE)
        dataset = SampleDataset(samples, pictures, self.model.config.image_tokens, image_id)
        nats = [float(losses.sum()) for losses in self.target_losses(dataset, label)]
        return [against - pro for pro, against in zip(nats[::2], nats[1::2], strict=True)]

    @torch.no_grad()  # not inference mode: a probe is trained on them
    def image_tokens(self, pictures: Pictures, count: int) -> tuple[Tensor, Tensor]:
        """Of the first ``count`` pictures: patch features [N, P, D_vision], and the image tokens [N, T, D] that the
        projector makes of them."""
        features, tokens = [], []
        for start in range(0, count, self._batch_size):
            shown = torch.from_numpy(pictures[list(range(start, min(start + self._batch_size, count)))])
            features.append(self._features(shown, pictures.key))
            tokens.append(self.model.model.multi_modal_projector(features[-1]))
        return torch.cat(features), torch.cat(tokens)

    def _features(self, shown: Tensor, key: str) -> Tensor:
        """Patch features of pictures, or of what the cache holds of them."""
        shown = shown.float().to(self.model.device)
        return shown if key == "patch_features" else self.model.patch_features(shown)

    @torch.inference_mode()
    def target_losses(self, dataset: SampleDataset, label: str) -> list[np.ndarray]:
        """Cross-entropy, in nats, of each target token in turn, an array per sample."""
        collate = PackCollate(self._tokenizer.pad_token_id, None)
        plan = plan_batches(dataset.lengths, None, self._batch_size, 1, False, 0)
        losses: list[np.ndarray] = []
        with packed_attention_in(self.model), tqdm(total=len(dataset), unit="text", desc=label) as bar:
            for numbers in plan:
                items = [dataset[number] for number in numbers]
                batch = send_to_device(collate(items), self.model.device)
                logits = self.model(**batch, num_items_in_batch=1).logits  # [N, V]
                labels = batch["labels"][batch["labels"] != IGNORED]
                nats = cross_entropy(logits, labels, reduction="none").cpu().numpy()
                ends = np.cumsum([count_targets(item["labels"][1:]) for item in items])
                losses += np.split(nats, ends[:-1])
                bar.update(len(items))
        return losses
