"""Greedy answers, yes/no margins and losses of one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from model import VlmForConditionalGeneration
from stages.common.chat import IGNORED, IMAGE, Encoder
from stages.common.features import Pictures
from stages.common.samples import PadCollate, SampleDataset


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

    @torch.inference_mode()
    def margins(self, questions: Sequence[Question], pictures: Pictures, yes: str, no: str, label: str) -> list[float]:
        """log p(yes) - log p(no) as the first words of the answer."""
        margins: list[float] = []
        candidates = [self.encoder.ids(yes), self.encoder.ids(no)]
        with tqdm(total=len(questions), unit="question", desc=label) as bar:
            for start in range(0, len(questions), self._batch_size):
                part = questions[start : start + self._batch_size]
                prompts, seen = [self._prompt_ids(q.prompt) for q in part], self._seen(part, pictures)
                scores = [self._log_likelihood(prompts, words, seen) for words in candidates]
                margins += (scores[0] - scores[1]).tolist()
                bar.update(len(part))
        return margins

    def _log_likelihood(self, prompts: Sequence[list[int]], words: list[int], seen: Tensor | None) -> Tensor:
        """Log-probability [B] of the tokens ``words`` right after each prompt."""
        embeds, mask = self._embed([prompt + words for prompt in prompts], seen)
        hidden = self.model.model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state
        logits = self.model.lm_head(hidden[:, -len(words) - 1 : -1]).float().log_softmax(-1)  # [B, W, V]
        index = torch.tensor(words, device=logits.device).expand(len(prompts), -1).unsqueeze(-1)
        return logits.gather(-1, index).sum((1, 2)).cpu()

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
        collate = PadCollate(self._tokenizer.pad_token_id)
        order = sorted(range(len(dataset)), key=lambda number: -dataset.lengths[number])  # little is spent on padding
        losses: dict[int, np.ndarray] = {}
        with tqdm(total=len(order), unit="text", desc=label) as bar:
            for start in range(0, len(order), self._batch_size):
                part = order[start : start + self._batch_size]
                batch = collate([dataset[number] for number in part])
                ids, labels = (batch.pop(name).to(self.model.device) for name in ("input_ids", "labels"))
                seen = next((self._features(shown, key) for key, shown in batch.items()), None)
                hidden = self.model.model(inputs_embeds=self.model.embed(ids, seen), use_cache=False).last_hidden_state
                targets = labels[:, 1:]
                chosen = targets != IGNORED
                logits = self.model.lm_head(hidden[:, :-1][chosen]).float()
                nats = cross_entropy(logits, targets[chosen], reduction="none").cpu().numpy()
                ends = chosen.sum(1).cumsum(0).cpu().numpy()
                losses |= dict(zip(part, np.split(nats, ends[:-1]), strict=True))
                bar.update(len(part))
        return [losses[number] for number in range(len(dataset))]
