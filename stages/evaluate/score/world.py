"""Scores of a checkpoint on the built-in world: every answer is compared with the truth of its scene."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from stages.common.config.params import Params
from stages.common.core.errors import InputError
from stages.common.data.shards import read_rows
from stages.common.world.scene import Scene, held_out_pairs
from stages.common.world.vocabulary import KINDS
from stages.evaluate.files import (
    FAR_FIRST,
    TEXT_TASKS,
    YES_NO_TASKS,
    TextLosses,
    read_answers,
    read_hidden,
    read_losses,
)
from stages.evaluate.score.bootstrap import Bootstrap, Estimate, sum_by_scene
from stages.evaluate.score.breakdowns import (
    PRIOR_METRICS,
    Point,
    by_background,
    by_distance,
    by_frequency,
    by_sentence,
    prior_counts,
)
from stages.evaluate.score.depth import (
    DEPTH_METRICS,
    REFERENCE_METRICS,
    depth_counts,
    reference_counts,
    sentence_ends,
)
from stages.evaluate.score.losses import (
    ALTERNATIVE_METRICS,
    LOSS_METRICS,
    loss_counts,
    two_alternative_counts,
    world_spans,
)
from stages.evaluate.score.overlap import distinct, overlap_estimates
from stages.evaluate.score.pope import POPE_METRICS, pope_counts, pope_row
from stages.evaluate.score.probe import probe_estimates
from stages.evaluate.score.results import Results, answer_row, select, unknown_row
from stages.evaluate.score.texts import TEXT_METRICS, TextScore, mention_rows, score_text

PREFIXES = {"description": "", "caption": "caption_", FAR_FIRST: "far_first_"}
# Captions state next to nothing about these.
_NOT_IN_CAPTIONS = {"colour_accuracy_held_out", "position_accuracy", "relation_accuracy"}


class Truth(NamedTuple):
    """A scene, and its reference texts by task."""

    scene: Scene
    references: Mapping[str, Sequence[str]]


def score_world(folder: Path, params: Params, split: str) -> Results:
    """Scores of what stage answer wrote to ``folder`` about scenes of ``split``: test, or validation for a checkpoint
    of an earlier epoch, which has no hidden states. Raises InputError if it and data/prepared do not match."""
    answers, losses = read_answers(folder), read_losses(folder)
    truths = {name: read_truths(name) for name in (split, "fixed")}
    for answer in answers:
        if answer.id not in truths.get(answer.split, {}):
            raise unknown_row(folder, answer.id)
    there = truths[split]
    names = [answer.id for answer in select(answers, split, TEXT_TASKS[0])]
    settings = params.evaluate
    bootstrap = Bootstrap(len(names), settings.bootstrap_samples, settings.confidence, params.seed)
    held_out = held_out_pairs(params.seed, params.data.held_out_colours)
    frequency = kind_frequency()
    estimates: dict[str, Estimate] = {}
    series: dict[str, list[Point]] = {}
    rows = []
    for task, prefix in PREFIXES.items():
        chosen = select(answers, split, task)
        _check_scenes(folder, task, [answer.id for answer in chosen], names)
        scores = [score_text(answer.answer, there[answer.id].scene) for answer in chosen]
        rows += [answer_row(a) | mention_rows(score) for a, score in zip(chosen, scores, strict=True)]
        for answer in select(answers, "fixed", task):
            rows.append(answer_row(answer) | mention_rows(score_text(answer.answer, truths["fixed"][answer.id].scene)))
        references = [there[answer.id].references[task] for answer in chosen]
        found = text_estimates(scores, references, held_out, frequency, bootstrap)
        if task in TEXT_TASKS:
            found |= loss_estimates([each for each in losses if each.task == task], there, names, bootstrap)
        skipped = _NOT_IN_CAPTIONS if task == "caption" else ()
        estimates |= {prefix + name: each for name, each in found.items() if name not in skipped}
        if not prefix:
            series = {
                "sentence": by_sentence(scores, bootstrap),
                "frequency": by_frequency(scores, frequency, bootstrap),
                "background": by_background(scores, bootstrap),
                "distance": by_distance(len(scores), found),
            }
            estimates |= reference_estimates(params, round(fmean(len(sentence_ends(text.text)) for text in scores)))
    questions = [answer for answer in answers if answer.task in YES_NO_TASKS]
    asked = sum_by_scene(((answer.id, pope_counts(answer)) for answer in questions), names)
    estimates |= bootstrap.of_sums(asked, POPE_METRICS)
    if split == "test":
        estimates["probe_auc"], layers = probe_of(folder, [there[name].scene for name in names], bootstrap)
        series["layer"] = [
            Point(str(number), len(names), {"probe_auc": each}) for number, each in enumerate(layers, start=1)
        ]
    shown = [(answer.id, answer.answer) for answer in select(answers, "fixed", TEXT_TASKS[0])]
    return Results(split, len(names), estimates, series, [*rows, *map(pope_row, questions)], shown)


def _check_scenes(folder: Path, task: str, found: Sequence[str], names: Sequence[str]) -> None:
    """The far-first prompt is asked for the first of the scenes only."""
    if found != (names[: len(found)] if task == FAR_FIRST else names):
        raise InputError(
            f"{folder}: the {TEXT_TASKS[0]} and the {task} answers are of different scenes; run `dvc repro`"
        )


def read_truths(split: str) -> dict[str, Truth]:
    """The truth of each scene of a split, by its id."""
    truths = {}
    for row in read_rows(split, ["id", "scene", "texts"]):
        references: dict[str, list[str]] = {task: [] for task in PREFIXES}
        for text in row["texts"]:
            if text["task"] in references:
                references[text["task"]].append("".join(text["answer"]))
        truths[row["id"]] = Truth(Scene.from_json(row["scene"]), references)
    return truths


def kind_frequency() -> dict[str, int]:
    """How many train scenes show each kind."""
    scenes = (json.loads(row["scene"]) for row in read_rows("train", ["scene"]))
    counted = Counter(kind for scene in scenes for kind in {group["kind"] for group in scene["groups"]})
    return {kind: counted[kind] for kind in KINDS}


def text_estimates(
    scores: Sequence[TextScore],
    references: Sequence[Sequence[str]],
    held_out: frozenset[tuple[str, str]],
    frequency: Mapping[str, int],
    bootstrap: Bootstrap,
) -> dict[str, Estimate]:
    """The metrics of texts, one text and all its references for each of the first scenes; there may be more scenes."""
    texts = [score.text for score in scores]
    none: list[dict[str, float]] = [{}] * (bootstrap.scenes - len(scores))
    found = bootstrap.of_sums([*(score.counts(held_out) for score in scores), *none], TEXT_METRICS)
    found |= bootstrap.of_sums([*map(depth_counts, scores), *none], DEPTH_METRICS)
    found |= overlap_estimates(texts, references)
    found |= bootstrap.of_sums([*(prior_counts(score, frequency) for score in scores), *none], PRIOR_METRICS)
    return found | {f"distinct_{order}": Estimate.without_interval(distinct(texts, order)) for order in (1, 2)}


def reference_estimates(params: Params, sentences: int) -> dict[str, Estimate]:
    """The metrics of the descriptions of the first train scenes, from the claims that are stored with them.

    They are cut after ``sentences`` sentences: whole descriptions are longer than the texts of any phase, and CHAIR-i
    depends on length.
    """
    settings = params.evaluate
    rows = list(read_rows("train", ["id", "texts"], settings.reference_scenes))
    counted = [
        (row["id"], reference_counts(text["claims"][:sentences]))
        for row in rows
        for text in row["texts"]
        if text["task"] == TEXT_TASKS[0]
    ]
    # Another seed than that of the answers' resamples, from which these are independent.
    bootstrap = Bootstrap(len(rows), settings.bootstrap_samples, settings.confidence, params.seed + 1)
    return bootstrap.of_sums(sum_by_scene(counted, [row["id"] for row in rows]), REFERENCE_METRICS)


def loss_estimates(
    losses: Iterable[TextLosses], truths: Mapping[str, Truth], names: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Estimate]:
    """The metrics of the losses of reference texts."""
    counted = []
    for each in losses:
        counts = loss_counts(each, world_spans)
        if each.other_id:
            counts |= two_alternative_counts(each, truths[each.id].scene, truths[each.other_id].scene)
        counted.append((each.id, counts))
    return bootstrap.of_sums(sum_by_scene(counted, names), LOSS_METRICS | ALTERNATIVE_METRICS)


def probe_of(folder: Path, test: Sequence[Scene], bootstrap: Bootstrap) -> tuple[Estimate, list[Estimate]]:
    """Probes of the hidden states in ``folder``: the mean over layers, and each layer's."""
    validation = [Scene.from_json(row["scene"]) for row in read_rows("validation", ["scene"])]
    hidden = {split: read_hidden(folder, split) for split in ("validation", "test")}
    for split, scenes in (("validation", validation), ("test", test)):
        if len(hidden[split]) != len(scenes):
            raise InputError(
                f"{folder}: hidden states of {len(hidden[split])} {split} scenes, where there are {len(scenes)}; "
                "run `dvc repro`"
            )
    return probe_estimates(hidden["validation"], presence(validation), hidden["test"], presence(test), bootstrap)


def presence(scenes: Sequence[Scene]) -> np.ndarray:
    """Which kinds each of N scenes holds: [N, K]."""
    kinds = [scene.kinds for scene in scenes]
    return np.array([[kind in there for kind in KINDS] for there in kinds], bool).reshape(len(scenes), len(KINDS))
