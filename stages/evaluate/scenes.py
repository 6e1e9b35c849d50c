"""A checkpoint on the built-in world: every answer is counted against the truth of its scene."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.common.config.params import Params
from stages.common.data.chat import with_image
from stages.common.data.shards import read_rows
from stages.common.world.scene import Scene, held_out_pairs
from stages.common.world.vocabulary import KINDS
from stages.evaluate.answers import Answerer, Question
from stages.evaluate.score.bootstrap import Bootstrap, Estimate, sum_by_scene
from stages.evaluate.score.breakdowns import PRIOR_METRICS, Point, by_background, by_frequency, by_sentence, prior_counts
from stages.evaluate.findings import Findings, pictures_of
from stages.evaluate.grounding import (
    SWAP_METRICS,
    Classified,
    Span,
    area_under_curve,
    classify_tokens,
    fit_probe,
    swap_counts,
)
from stages.evaluate.score.mentions import colour_spans, find_mentions
from stages.evaluate.score.overlap import OVERLAP_METRICS, distinct, overlap_counts
from stages.evaluate.score.pope import POPE_METRICS, POPE_TASKS, PopeAnswer, pope_row
from stages.evaluate.score.texts import TEXT_METRICS, TextScore, score_text, text_row

# Fixed, so that checkpoints and runs compare; both are among the prompts that training shows.
PROMPTS = {"description": "请详细描述这张图片。", "caption": "用一句话描述这张图片。"}
PREFIXES = {"description": "", "caption": "caption_"}
# Captions say next to nothing of these.
_NOT_IN_CAPTIONS = {"colour_accuracy_held_out", "position_accuracy", "relation_accuracy"}
YES, NO = "有", "没有"
_POPE_TOKENS = 24  # a yes or no and the sentence after it

Row = dict[str, Any]


def evaluate_scenes(answerer: Answerer, params: Params, label: str) -> Findings:
    columns = ["id", "scene", "texts"]
    test = list(read_rows("test", columns, params.evaluate.scenes))
    fixed = list(read_rows("fixed", columns))
    settings = params.evaluate
    bootstrap = Bootstrap(len(test), settings.bootstrap_samples, settings.confidence, params.seed)
    held_out = held_out_pairs(params.seed, params.data.held_out_colours)
    frequency = kind_frequency()
    estimates: dict[str, Estimate] = {}
    series: dict[str, list[Point]] = {}
    written: list[Row] = []
    shown: list[tuple[str, str]] = []
    for task, prefix in PREFIXES.items():
        scores, rows = _scored_answers(answerer, test, "test", task, params, label)
        seen, fixed_rows = _scored_answers(answerer, fixed, "fixed", task, params, label)
        written += rows + fixed_rows
        shown = shown or [(score.scene.id, score.text) for score in seen]
        references = [references_of(row, task) for row in test]
        found = text_estimates(scores, references, held_out, frequency, bootstrap)
        found = {name: estimate for name, estimate in found.items() if not prefix or name not in _NOT_IN_CAPTIONS}
        texts = [_classified(answerer, number, task, told[0]) for number, told in enumerate(references)]
        swaps = swap_counts(answerer, texts, pictures_of("test", params), f"{label} {task}")
        found |= bootstrap.of_sums(swaps, SWAP_METRICS)
        estimates |= {prefix + name: estimate for name, estimate in found.items()}
        if task == "description":
            series = {
                "sentence": by_sentence(scores, bootstrap),
                "frequency": by_frequency(scores, frequency, bootstrap),
                "background": by_background(scores, bootstrap),
            }
    pope = _pope_answers(answerer, test, params, label)
    asked = sum_by_scene(((answer.scene, answer.counts()) for answer in pope), [row["id"] for row in test])
    estimates |= bootstrap.of_sums(asked, POPE_METRICS)
    estimates |= _probes(answerer, [row["scene"] for row in test], params, bootstrap)
    return Findings(len(test), estimates, series, [*written, *map(pope_row, pope)], shown)


def kind_frequency() -> dict[str, int]:
    """How many train scenes show each kind."""
    scenes = (json.loads(row["scene"]) for row in read_rows("train", ["scene"]))
    counted = Counter(kind for scene in scenes for kind in {group["kind"] for group in scene["groups"]})
    return {kind: counted[kind] for kind in KINDS}


def references_of(row: Row, task: str) -> list[str]:
    return ["".join(text["answer"]) for text in row["texts"] if text["task"] == task]


def text_estimates(
    scores: Sequence[TextScore],
    references: Sequence[Sequence[str]],
    held_out: frozenset[tuple[str, str]],
    frequency: dict[str, int],
    bootstrap: Bootstrap,
) -> dict[str, Estimate]:
    """What the texts alone tell, one of each scene."""
    texts = [score.text for score in scores]
    found = bootstrap.of_sums([score.counts(held_out) for score in scores], TEXT_METRICS)
    found |= bootstrap.of_sums(overlap_counts(texts, references), OVERLAP_METRICS)
    found |= bootstrap.of_sums([prior_counts(score, frequency) for score in scores], PRIOR_METRICS)
    return found | {f"distinct_{order}": Estimate.alone(distinct(texts, order)) for order in (1, 2)}


def _scored_answers(
    answerer: Answerer, rows: Sequence[Row], split: str, task: str, params: Params, label: str
) -> tuple[list[TextScore], list[Row]]:
    """Each scene's answer to one prompt, scored, and as a row with a reference text beside it."""
    prompt = PROMPTS[task]
    questions = [Question((number,), with_image(prompt)) for number in range(len(rows))]
    answers = answerer.answer(
        questions, pictures_of(split, params), params.evaluate.max_new_tokens, f"{label} {split} {task}"
    )
    scores, written = [], []
    for row, answer in zip(rows, answers, strict=True):
        scores.append(score_text(answer, Scene.from_json(row["scene"])))
        written.append(text_row(scores[-1], split, task, prompt, references_of(row, task)[0]))
    return scores, written


def _classified(answerer: Answerer, number: int, task: str, reference: str) -> Classified:
    """A reference text as the answer to a prompt about picture ``number``."""
    turns = [(with_image(PROMPTS[task]), [reference])]
    ids, labels, classes = classify_tokens(answerer.encoder, turns, world_spans)
    return Classified(([number], ids, labels), classes)


def world_spans(text: str) -> Iterator[Span]:
    """The words that name a kind, or a colour, for the first time.

    What a text has said before it can repeat without a look at the picture: with repetitions counted, a checkpoint
    that learns to keep to its own words would seem to look less.
    """
    kinds = {mention.kind: mention for mention in reversed(find_mentions(text))}
    yield from ((mention.start, mention.end, "object") for mention in kinds.values())
    colours = {text[start:end]: (start, end) for start, end in reversed(colour_spans(text))}
    yield from ((start, end, "colour") for start, end in colours.values())


def _pope_answers(answerer: Answerer, rows: Sequence[Row], params: Params, label: str) -> list[PopeAnswer]:
    asked = [(number, text) for number, row in enumerate(rows) for text in row["texts"] if text["task"] in POPE_TASKS]
    questions = [Question((number,), with_image(text["question"])) for number, text in asked]
    pictures = pictures_of("test", params)
    answers = answerer.answer(questions, pictures, _POPE_TOKENS, f"{label} yes/no")
    margins = answerer.margins(questions, pictures, YES, NO, f"{label} margins")
    return [
        PopeAnswer(rows[number]["id"], text["task"], text["question"], answer, text["kind"], text["expected"], margin)
        for (number, text), answer, margin in zip(asked, answers, margins, strict=True)
    ]


def _probes(answerer: Answerer, test: Sequence[str], params: Params, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Presence of objects, read off the image tokens and, for comparison, off the encoder's own patch features."""
    learnt = [row["scene"] for row in read_rows("validation", ["scene"])]
    present = {split: _present(scenes) for split, scenes in (("validation", learnt), ("test", test))}
    seen = {split: answerer.image_tokens(pictures_of(split, params), len(truth)) for split, truth in present.items()}
    estimates = {}
    for name, which in (("probe_vision_auc", 0), ("probe_auc", 1)):
        probe = fit_probe(seen["validation"][which], present["validation"].to(answerer.model.device))
        scores = probe(seen["test"][which]).cpu().numpy()
        estimates[name] = bootstrap.of(area_under_curve(scores, present["test"].numpy()))
    return estimates


def _present(scenes: Sequence[str]) -> Tensor:
    """Which kinds each scene holds: [N, K]."""
    kinds = [Scene.from_json(scene).kinds for scene in scenes]
    return torch.from_numpy(np.array([[kind in there for kind in KINDS] for there in kinds], np.float32))
