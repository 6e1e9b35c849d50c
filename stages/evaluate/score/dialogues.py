"""Scores of a checkpoint on dialogues read from files.

What their pictures show is not known: their losses are compared between pictures, and of the answers the length and
repetition are measured. Descriptions of photographs are scored if data/eval/photographs.yaml lists the photograph.
"""

from __future__ import annotations

from pathlib import Path

from stages.common.config.params import Params
from stages.evaluate.files import read_answers, read_losses
from stages.evaluate.score.bootstrap import Bootstrap, ratio, sum_by_scene
from stages.evaluate.score.lexicon import LEXICON, load_lexicon
from stages.evaluate.score.losses import LOSS_METRICS, lexicon_spans, loss_counts
from stages.evaluate.score.photographs import (
    MANIFEST,
    PHOTOGRAPH_METRICS,
    image_key,
    load_manifest,
    mention_rows,
    score_photograph,
)
from stages.evaluate.score.results import Results, answer_row, select, unknown_row
from stages.evaluate.score.texts import repetition

PREFIXES = {"description": "photograph_", "caption": "caption_photograph_"}
_METRICS = {"length": ratio("characters", "texts"), "repetition": ratio("repetition", "texts")}


def score_dialogues(folder: Path, params: Params, split: str) -> Results:
    """Scores of what stage answer wrote to ``folder`` about the rows of ``split``."""
    answers, losses = read_answers(folder), read_losses(folder)
    settings = params.evaluate
    lexicon = load_lexicon(LEXICON)
    manifest = load_manifest(MANIFEST, lexicon)
    described = select(answers, split, "description")
    names = [answer.id for answer in described]
    for each in losses:
        if each.id not in names:
            raise unknown_row(folder, each.id)
    bootstrap = Bootstrap(len(names), settings.bootstrap_samples, settings.confidence, params.seed)
    counted = [(each.id, loss_counts(each, lambda text: lexicon_spans(text, lexicon))) for each in losses]
    forms = [
        {"texts": 1, "characters": len(answer.answer), "repetition": repetition(answer.answer)} for answer in described
    ]
    estimates = bootstrap.of_sums(sum_by_scene(counted, names), LOSS_METRICS) | bootstrap.of_sums(forms, _METRICS)
    rows = [answer_row(answer) for answer in described]
    for task, prefix in PREFIXES.items():
        counts = []
        for answer in select(answers, "fixed", task):
            row = answer_row(answer)
            if (entry := manifest.get(image_key(answer.id))) is not None:
                score = score_photograph(answer.answer, entry, lexicon)
                row |= {"mentions": mention_rows(score), "missed": list(score.missed)}
                counts.append(score.counts())
            rows.append(row)
        if counts:
            photographs = Bootstrap(len(counts), settings.bootstrap_samples, settings.confidence, params.seed)
            found = photographs.of_sums(counts, PHOTOGRAPH_METRICS)
            estimates |= {prefix + name: estimate for name, estimate in found.items()}
    shown = [(answer.id, answer.answer) for answer in select(answers, "fixed", "description")]
    return Results(split, len(names), estimates, {}, rows, shown)
