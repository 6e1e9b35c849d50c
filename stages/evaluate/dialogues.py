"""A checkpoint on dialogues read from files: their loss, with their own pictures and with others, and the form of its
answers, for no truth is known; what it says of photographs that the manifest lists is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stages.common.config.params import Params
from stages.common.data.chat import IMAGE
from stages.common.data.samples import cut
from stages.common.data.shards import picture_starts, read_rows
from stages.evaluate.answers import Answerer, Question
from stages.evaluate.score.bootstrap import Bootstrap, ratio
from stages.evaluate.findings import Findings, pictures_of
from stages.evaluate.grounding import SWAP_METRICS, Classified, Span, classify_tokens, swap_counts
from stages.evaluate.score.lexicon import LEXICON, Lexicon, load_lexicon
from stages.evaluate.score.photographs import (
    MANIFEST,
    PHOTOGRAPH_METRICS,
    PhotographScore,
    image_key,
    load_manifest,
    mention_rows,
    score_photograph,
)
from stages.evaluate.score.texts import repetition

# The long one is what MiniMind-V's own evaluation asks, the short one a prompt of its pretraining data.
PROMPTS = {"description": f"{IMAGE}\n描述一下这个图像的内容。", "caption": f"{IMAGE}\n提供给定图像的简要描述。"}
PREFIXES = {"description": "photograph_", "caption": "caption_photograph_"}
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
    lexicon = load_lexicon(LEXICON)
    texts = _test_texts(answerer, rows, lexicon)
    swaps = swap_counts(answerer, texts, pictures_of("test", params), f"{label} test")
    bootstrap = Bootstrap(len(rows), settings.bootstrap_samples, settings.confidence, params.seed)
    estimates = bootstrap.of_sums(swaps, SWAP_METRICS) | bootstrap.of_sums(written_counts, METRICS)
    described, shown = _photographs(answerer, params, lexicon, label)
    for task, prefix in PREFIXES.items():
        counts = [score.counts() for asked, _, score in described if asked == task and score is not None]
        again = Bootstrap(len(counts), settings.bootstrap_samples, settings.confidence, params.seed)
        found = again.of_sums(counts, PHOTOGRAPH_METRICS) if counts else {}
        estimates |= {prefix + name: estimate for name, estimate in found.items()}
    return Findings(len(rows), estimates, {}, [*answers, *(row for _, row, _ in described)], shown)


def _photographs(
    answerer: Answerer, params: Params, lexicon: Lexicon, label: str
) -> tuple[list[tuple[str, Row, PhotographScore | None]], list[tuple[str, str]]]:
    """(task, row, score) of each answer, without a score where the manifest does not know the picture; and (name,
    description) of each picture."""
    names = [row["id"] for row in read_rows("fixed", ["id"])]
    manifest = load_manifest(MANIFEST, lexicon)
    described: list[tuple[str, Row, PhotographScore | None]] = []
    for task, prompt in PROMPTS.items() if names else ():
        questions = [Question((number,), prompt) for number in range(len(names))]
        pictures, longest = pictures_of("fixed", params), params.evaluate.max_new_tokens
        for name, text in zip(
            names, answerer.answer(questions, pictures, longest, f"{label} photographs {task}"), strict=True
        ):
            row, score = _answer_row(name, "fixed", task, prompt, text, ""), None
            if (entry := manifest.get(image_key(name))) is not None:
                score = score_photograph(text, entry, lexicon)
                row |= {"mentions": mention_rows(score), "missed": list(score.missed)}
            described.append((task, row, score))
    return described, [(row["id"], row["answer"]) for task, row, _ in described if task == "description"]


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


def _test_texts(answerer: Answerer, rows: Sequence[Row], lexicon: Lexicon) -> list[Classified]:
    """The rows' dialogues, cut off where the decoder's positions end."""
    starts = picture_starts("test")
    config, encoder = answerer.model.config, answerer.encoder
    image_id = encoder.token_id(IMAGE)
    texts = []
    for number, row in enumerate(rows):
        turns = [(turn["question"], turn["answer"]) for turn in row["texts"]]
        ids, labels, classes = classify_tokens(encoder, turns, lambda text: lexicon_spans(text, lexicon))
        whole = (range(starts[number], starts[number + 1]), ids, labels)
        texts.append(
            Classified(cut(whole, image_id, config.image_tokens, config.text_config.max_position_embeddings), classes)
        )
    return texts


def lexicon_spans(text: str, lexicon: Lexicon) -> Iterator[Span]:
    """The words that name a thing of the lexicon, or a colour, for the first time in a text."""
    things = {thing.concept: (thing.start, thing.end) for thing in reversed(lexicon.find(text))}
    yield from ((start, end, "object") for start, end in things.values())
    colours = {text[start:end]: (start, end) for start, end in reversed(lexicon.colour_spans(text))}
    yield from ((start, end, "colour") for start, end in colours.values())


def _answer_row(name: str, split: str, task: str, prompt: str, answer: str, reference: str) -> Row:
    shown = prompt.replace(IMAGE, "").strip()
    row = {"id": name, "split": split, "task": task, "prompt": shown, "answer": answer, "reference": reference}
    return row | {"mentions": [], "missed": []}
