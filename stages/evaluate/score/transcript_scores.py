"""Scores of texts about photographs, written by any model: a table on the terminal, and every mention as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.common.config.params import Params
from stages.common.core.errors import InputError
from stages.common.core.files import write_json
from stages.evaluate.score.bootstrap import Bootstrap, Estimate
from stages.evaluate.score.lexicon import Lexicon, load_lexicon
from stages.evaluate.score.photographs import (
    ASPECTS,
    PHOTOGRAPH_METRICS,
    Manifest,
    PhotographScore,
    image_key,
    load_manifest,
    score_photograph,
)
from stages.evaluate.score.transcripts import read_transcripts

_COLUMNS = ("recall", "chair_i", "unsupported", "length", "repetition")
_PERCENT = {"recall", "chair_i", "chair_s", "repetition", *(f"subject_{aspect}" for aspect in ASPECTS)}
_NAMES = {
    "chair_i": "CHAIR-i",
    "chair_s": "CHAIR-s",
    **{f"subject_{aspect}": f"subject's {aspect}" for aspect in ASPECTS},
}
_SIGNS = {"right": "+", "wrong": "-", "not stated": "."}

Scores = Mapping[str, Sequence[PhotographScore]]  # for each picture of the manifest, in its order


def score_file(path: Path, manifest: Manifest, lexicon: Lexicon) -> Scores:
    """Raises InputError for a picture that the manifest does not list."""
    scores: dict[str, list[PhotographScore]] = {name: [] for name in manifest}
    for transcript in read_transcripts(path):
        key = image_key(transcript.image)
        if key not in manifest:
            raise InputError(
                f"{path}, line {transcript.line}: the manifest has no picture {transcript.image}; add an entry, or "
                f"use one of: {', '.join(manifest)}"
            )
        scores[key].append(score_photograph(transcript.text, manifest[key], lexicon))
    return scores


def overall(scores: Scores, samples: int, confidence: float, seed: int) -> dict[str, Estimate]:
    """Metrics over the pictures that have a text; each picture has the same weight, however many texts it has."""
    rows = [_mean(found) for found in scores.values() if found]
    return Bootstrap(len(rows), samples, confidence, seed).of_sums(rows, PHOTOGRAPH_METRICS)


def _mean(found: Sequence[PhotographScore]) -> dict[str, float]:
    counts = [score.counts() for score in found]
    return {name: sum(row[name] for row in counts) / len(counts) for name in counts[0]}


def table(path: Path, scores: Scores, metrics: Mapping[str, Estimate], confidence: float) -> str:
    """For the terminal: a line per picture, then the metrics over all pictures."""
    head = ("recall %", "CHAIR-i %", "unsupported", "length", "repetition %", "subject: gender, colour, count")
    lines = [str(path), "  ".join([*(f"{name:>12}" for name in head[:-1]), head[-1], "picture: unsupported words"])]
    for name, found in scores.items():
        if not found:
            continue
        each = Bootstrap(1, 0, confidence, 0).of_sums([_mean(found)], PHOTOGRAPH_METRICS)
        words = "、".join(dict.fromkeys(word for score in found for word in score.unsupported))
        signs = [" ".join(_SIGNS[score.subject[aspect]] for score in found) for aspect in ASPECTS]
        values = [f"{_shown(column, each[column].value):>12}" for column in _COLUMNS]
        lines.append("  ".join([*values, f"{'  '.join(signs):<30}", f"{name}: {words or '–'}"]))
    lines.append("the main subject's gender, colour and count: + right, - wrong, . not stated")
    lines.append(f"over {sum(bool(found) for found in scores.values())} pictures, {100 * confidence:g} % interval:")
    for metric, estimate in metrics.items():
        interval = f"[{_shown(metric, estimate.low)}, {_shown(metric, estimate.high)}]"
        unit = " %" if metric in _PERCENT else ""
        lines.append(f"  {_NAMES.get(metric, metric):<16} {_shown(metric, estimate.value):>7}{unit:2} {interval}")
    return "\n".join(lines)


def _shown(metric: str, value: float) -> str:
    if value != value:
        return "–"
    return f"{100 * value:.1f}" if metric in _PERCENT else f"{value:.1f}"


def as_json(path: Path, scores: Scores, metrics: Mapping[str, Estimate]) -> dict[str, Any]:
    texts = [
        {
            "image": name,
            "text": score.text,
            "mentions": [asdict(thing) | {"supported": supported} for thing, supported in score.mentions],
            "missed": score.missed,
            "subject": dict(score.subject),
        }
        for name, found in scores.items()
        for score in found
    ]
    return {"file": str(path), "overall": {name: estimate.row() for name, estimate in metrics.items()}, "texts": texts}


def score_transcripts(
    transcripts: Sequence[Path], manifest_path: Path, lexicon_path: Path, json_path: Path | None, params: Params
) -> None:
    """Print a table for each file of texts; with ``json_path``, write metrics and mentions there.

    Raises InputError for a file that cannot be used, before anything is printed or written.
    """
    settings = params.evaluate
    lexicon = load_lexicon(lexicon_path)
    manifest = load_manifest(manifest_path, lexicon)
    scored = [(path, score_file(path, manifest, lexicon)) for path in transcripts]
    written = []
    for path, scores in scored:
        metrics = overall(scores, settings.bootstrap_samples, settings.confidence, params.seed)
        print(table(path, scores, metrics, settings.confidence), flush=True)
        written.append(as_json(path, scores, metrics))
        if without := [name for name, texts in scores.items() if not texts]:
            print(f"no text in {path} about: {', '.join(without)}", file=sys.stderr)
    if json_path is not None:
        write_json(json_path, written)
