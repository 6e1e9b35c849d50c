"""A checkpoint on dialogues read from files: no truth is known, so its loss and the form of its texts are measured.

What the photographs show is for the reader to compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.common.chat import IMAGE
from stages.common.params import Params
from stages.common.samples import SampleDataset, Samples
from stages.common.shards import picture_starts, read_rows
from stages.evaluate.answers import Answerer, Question
from stages.evaluate.findings import Findings, pictures_of
from stages.evaluate.metrics import bootstrap, ratio, repetition

# The long one is what MiniMind-V's own evaluation asks, the short one a prompt of its pretraining data.
PROMPTS = {"description": f"{IMAGE}\n描述一下这个图像的内容。", "caption": f"{IMAGE}\n提供给定图像的简要描述。"}
METRICS = {
    "loss": ratio("nats", "targets"),
    "length": ratio("characters", "texts"),
    "repetition": ratio("repetition", "texts"),
}

Row = dict[str, Any]


def evaluate_dialogues(answerer: Answerer, params: Params, label: str) -> Findings:
    """Test rows: the loss of their dialogues, and answers to their first questions. Photographs: both prompts."""
    settings = params.evaluate
    rows = list(read_rows("test", ["id", "texts"], settings.scenes))
    answers = _first_answers(answerer, rows, params, label)
    nats = answerer.losses(_test_dataset(answerer, rows, params), f"{label} test loss")
    counts = [
        {
            "nats": loss,
            "targets": targets,
            "texts": 1,
            "characters": len(answer["answer"]),
            "repetition": repetition(answer["answer"]),
        }
        for (loss, targets), answer in zip(nats, answers, strict=True)
    ]
    intervals = bootstrap(counts, METRICS, settings.bootstrap_samples, settings.confidence, params.seed)
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
    return Findings(len(rows), intervals, written, shown)


def _first_answers(answerer: Answerer, rows: Sequence[Row], params: Params, label: str) -> list[Row]:
    starts = picture_starts("test")
    questions = []
    for number, row in enumerate(rows):
        prompt = row["texts"][0]["question"]
        questions.append(Question(tuple(range(starts[number], starts[number] + prompt.count(IMAGE))), prompt))
    texts = answerer.answer(
        questions, pictures_of("test", params), params.evaluate.max_new_tokens, f"{label} test questions"
    )
    return [
        _answer_row(row["id"], "test", "description", question.prompt, text, "".join(row["texts"][0]["answer"]))
        for row, question, text in zip(rows, questions, texts, strict=True)
    ]


def _test_dataset(answerer: Answerer, rows: Sequence[Row], params: Params) -> SampleDataset:
    starts = picture_starts("test")
    samples = Samples.of(
        (
            range(starts[number], starts[number + 1]),
            *answerer.encoder.dialogue([(turn["question"], turn["answer"]) for turn in row["texts"]]),
        )
        for number, row in enumerate(rows)
    )
    config = answerer.model.config
    return SampleDataset(
        samples,
        pictures_of("test", params),
        config.image_tokens,
        answerer.encoder.token_id(IMAGE),
        config.text_config.max_position_embeddings,
    )


def _answer_row(name: str, split: str, task: str, prompt: str, answer: str, reference: str) -> Row:
    shown = prompt.replace(IMAGE, "").strip()
    row = {"id": name, "split": split, "task": task, "prompt": shown, "answer": answer, "reference": reference}
    return row | {"mentions": [], "missed": []}
