"""Greedy answers and yes/no margins of one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from model import VlmForConditionalGeneration
from stages.common.chat import END, IMAGE, Encoder, prompt_text


@dataclass(frozen=True)
class Question:
    """A question about the picture whose features stand at ``row`` of the split's array."""

    row: int
    prompt: str


class Answerer:
    """Answers questions about pictures whose patch features are known; sampling is off, so answers repeat exactly."""

    def __init__(self, model: VlmForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, batch_size: int) -> None:
        self._model, self._tokenizer, self._batch_size = model.eval(), tokenizer, batch_size
        self._encoder = Encoder(tokenizer)
        self._end_id = self._encoder.token_id(END)

    def _prompt_ids(self, prompt: str) -> list[int]:
        ids = self._encoder.ids(prompt_text(prompt, image=True))
        at = ids.index(self._encoder.token_id(IMAGE))
        return ids[:at] + [ids[at]] * self._model.config.image_tokens + ids[at + 1 :]

    def _embed(self, rows: Sequence[list[int]], features: np.ndarray) -> tuple[Tensor, Tensor]:
        """Left-padded embeddings [B, T, D] and their mask [B, T]."""
        longest = max(map(len, rows))
        device = self._model.device
        ids = torch.tensor([[self._tokenizer.pad_token_id] * (longest - len(r)) + r for r in rows], device=device)
        mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows], device=device)
        return self._model.embed(ids, torch.from_numpy(features.astype(np.float32)).to(device)), mask

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], features: np.ndarray, max_new_tokens: int, label: str) -> list[str]:
        answers: list[str] = []
        with tqdm(total=len(questions), unit="answer", desc=label) as bar:
            for start in range(0, len(questions), self._batch_size):
                part = questions[start : start + self._batch_size]
                embeds, mask = self._embed([self._prompt_ids(q.prompt) for q in part], features[[q.row for q in part]])
                out = self._model.generate(
                    inputs_embeds=embeds,
                    attention_mask=mask,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    eos_token_id=self._end_id,
                    pad_token_id=self._tokenizer.pad_token_id,
                )
                answers += self._tokenizer.batch_decode(out, skip_special_tokens=True)
                bar.update(len(part))
        return answers

    @torch.inference_mode()
    def margins(
        self, questions: Sequence[Question], features: np.ndarray, yes: str, no: str, label: str
    ) -> list[float]:
        """log p(yes) - log p(no) as the first words of the answer."""
        margins: list[float] = []
        candidates = [self._encoder.ids(yes), self._encoder.ids(no)]
        with tqdm(total=len(questions), unit="question", desc=label) as bar:
            for start in range(0, len(questions), self._batch_size):
                part = questions[start : start + self._batch_size]
                prompts = [self._prompt_ids(q.prompt) for q in part]
                scores = [self._log_likelihood(prompts, words, features[[q.row for q in part]]) for words in candidates]
                margins += (scores[0] - scores[1]).tolist()
                bar.update(len(part))
        return margins

    def _log_likelihood(self, prompts: Sequence[list[int]], words: list[int], features: np.ndarray) -> Tensor:
        """Log-probability [B] of the tokens ``words`` right after each prompt."""
        embeds, mask = self._embed([prompt + words for prompt in prompts], features)
        hidden = self._model.model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state
        logits = self._model.lm_head(hidden[:, -len(words) - 1 : -1]).float().log_softmax(-1)  # [B, W, V]
        index = torch.tensor(words, device=logits.device).expand(len(prompts), -1).unsqueeze(-1)
        return logits.gather(-1, index).sum((1, 2)).cpu()
