"""A checkpoint on dialogues read from files: no truth is known, so its loss and the form of its texts are measured.

What the photographs show is for the reader to compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.common.chat import IMAGE
from stages.common.params import Params
from stages.common.samples import cut
from stages.common.shards import picture_starts, read_rows
from stages.evaluate.answers import Answerer, Question
from stages.evaluate.bootstrap import Bootstrap, ratio
from stages.evaluate.findings import Findings, pictures_of
from stages.evaluate.grounding import SWAP_METRICS, Classified, classify_tokens, swap_counts
from stages.evaluate.texts import repetition

# The long one is what MiniMind-V's own evaluation asks, the short one a prompt of its pretraining data.
PROMPTS = {"description": f"{IMAGE}\n描述一下这个图像的内容。", "caption": f"{IMAGE}\n提供给定图像的简要描述。"}
METRICS = {
    "length": ratio("characters", "texts"),
    "repetition": ratio("repetition", "texts"),
}

Row = dict[str, Any]


def evaluate_dialogues(answerer: Answerer, params: Params, label: str) -> Findings:
    """Test rows: the loss of their dialogues, and answers to their first questions. Photographs: both prompts."""
    settings = params.evaluate
    rows = list(read_rows("test", ["id", "texts"], settings.scenes))
    answers = _first_answers(answerer, rows, params, label)
    written_counts = [
        {"texts": 1, "characters": len(row["answer"]), "repetition": repetition(row["answer"])} for row in answers
    ]
    swaps = swap_counts(answerer, _test_texts(answerer, rows), pictures_of("test", params), f"{label} test")
    bootstrap = Bootstrap(len(rows), settings.bootstrap_samples, settings.confidence, params.seed)
    estimates = bootstrap.of_sums(swaps, SWAP_METRICS) | bootstrap.of_sums(written_counts, METRICS)
    photographs = [row["id"] for row in read_rows("fixed", ["id"])]
    written = answers
    shown: list[tuple[str, str]] = []
    for task, prompt in PROMPTS.items() if photographs else ():
        questions = [Question((number,), prompt) for number in range(len(photographs))]
        texts = answerer.answer(
            questions, pictures_of("fixed", params), settings.max_new_tokens, f"{label} photographs {task}"
        )
        written = written + [
            _answer_row(name, "fixed", task, prompt, text, "") for name, text in zip(photographs, texts, strict=True)
        ]
        shown = shown or list(zip(photographs, texts, strict=True))
    return Findings(len(rows), estimates, {}, written, shown)


def _first_answers(answerer: Answerer, rows: Sequence[Row], params: Params, label: str) -> list[Row]:
    starts = picture_starts("test")
    room = answerer.model.config.text_config.max_position_embeddings - params.evaluate.max_new_tokens
    questions, asked = [], []
    for number, row in enumerate(rows):
        prompt = row["texts"][0]["question"]
        question = Question(tuple(range(starts[number], starts[number] + prompt.count(IMAGE))), prompt)
        if answerer.length(question) <= room:
            questions.append(question)
            asked.append(number)
    texts = answerer.answer(
        questions, pictures_of("test", params), params.evaluate.max_new_tokens, f"{label} test questions"
    )
    said = dict(zip(asked, texts, strict=True))  # no answer where the question alone fills the decoder
    return [
        _answer_row(
            row["id"],
            "test",
            "description",
            row["texts"][0]["question"],
            said.get(number, ""),
            "".join(row["texts"][0]["answer"]),
        )
        for number, row in enumerate(rows)
    ]


def _test_texts(answerer: Answerer, rows: Sequence[Row]) -> list[Classified]:
    """The rows' dialogues, cut off where the decoder's positions end."""
    starts = picture_starts("test")
    config, encoder = answerer.model.config, answerer.encoder
    image_id = encoder.token_id(IMAGE)
    texts = []
    for number, row in enumerate(rows):
        turns = [(turn["question"], turn["answer"]) for turn in row["texts"]]
        ids, labels, classes = classify_tokens(encoder, turns, lambda text: ())
        whole = (range(starts[number], starts[number + 1]), ids, labels)
        texts.append(
            Classified(cut(whole, image_id, config.image_tokens, config.text_config.max_position_embeddings), classes)
        )
    return texts


def _answer_row(name: str, split: str, task: str, prompt: str, answer: str, reference: str) -> Row:
    shown = prompt.replace(IMAGE, "").strip()
    row = {"id": name, "split": split, "task": task, "prompt": shown, "answer": answer, "reference": reference}
    return row | {"mentions": [], "missed": []}
