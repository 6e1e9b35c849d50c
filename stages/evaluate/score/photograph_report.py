"""Scores texts about photographs, whatever model made them:

python -m stages.evaluate.score --manifest data/eval/photographs.yaml TRANSCRIPTS [TRANSCRIPTS ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.common.config.params import load_params
from stages.common.core.errors import InputError
from stages.common.core.files import write_json
from stages.common.core.stage import run_stage
from stages.evaluate.score.bootstrap import Bootstrap, Estimate
from stages.evaluate.score.lexicon import LEXICON, Lexicon, load_lexicon
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

Scores = Mapping[str, Sequence[PhotographScore]]  # of each picture of the manifest, in its order


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
    """Over the pictures that have a text, each of the same weight, however many texts are about it."""
    rows = [_mean(found) for found in scores.values() if found]
    return Bootstrap(len(rows), samples, confidence, seed).of_sums(rows, PHOTOGRAPH_METRICS)


def _mean(found: Sequence[PhotographScore]) -> dict[str, float]:
    counts = [score.counts() for score in found]
    return {name: sum(row[name] for row in counts) / len(counts) for name in counts[0]}


def table(path: Path, scores: Scores, whole: Mapping[str, Estimate], confidence: float) -> str:
    """What stands on the terminal; per picture first, then over all."""
    head = ("recall %", "CHAIR-i %", "unsupported", "length", "repetition %", "subject: gender, colour, count")
    lines = [str(path), "  ".join([*(f"{name:>12}" for name in head[:-1]), head[-1], "picture: unsupported words"])]
    for name, found in scores.items():
        if not found:
            continue
        each = Bootstrap(1, 0, confidence, 0).of_sums([_mean(found)], PHOTOGRAPH_METRICS)
        said = "、".join(dict.fromkeys(word for score in found for word in score.unsupported))
        signs = [" ".join(_SIGNS[score.subject[aspect]] for score in found) for aspect in ASPECTS]
        figures = [f"{_shown(column, each[column].value):>12}" for column in _COLUMNS]
        lines.append("  ".join([*figures, f"{'  '.join(signs):<30}", f"{name}: {said or '–'}"]))
    lines.append("the main subject's gender, colour and count: + right, - wrong, . not stated")
    lines.append(f"over {sum(bool(found) for found in scores.values())} pictures, {100 * confidence:g} % interval:")
    for metric, estimate in whole.items():
        interval = f"[{_shown(metric, estimate.low)}, {_shown(metric, estimate.high)}]"
        unit = " %" if metric in _PERCENT else ""
        lines.append(f"  {_NAMES.get(metric, metric):<16} {_shown(metric, estimate.value):>7}{unit:2} {interval}")
    return "\n".join(lines)


def _shown(metric: str, value: float) -> str:
    if value != value:
        return "–"
    return f"{100 * value:.1f}" if metric in _PERCENT else f"{value:.1f}"


def as_json(path: Path, scores: Scores, whole: Mapping[str, Estimate]) -> dict[str, Any]:
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
    return {"file": str(path), "overall": {name: estimate.row() for name, estimate in whole.items()}, "texts": texts}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.evaluate.score", description=__doc__.splitlines()[0])
    parser.add_argument("transcripts", nargs="+", type=Path, help="JSON lines, or the notes' [Image]: form")
    parser.add_argument("--manifest", type=Path, required=True, help="what is in the pictures, YAML")
    parser.add_argument("--lexicon", type=Path, default=LEXICON, help=f"what texts call things, YAML ({LEXICON})")
    parser.add_argument("--json", type=Path, help="write figures and every mention to this file")
    asked = parser.parse_args()
    params = load_params()
    settings = params.evaluate
    lexicon = load_lexicon(asked.lexicon)
    manifest = load_manifest(asked.manifest, lexicon)
    found = [(path, score_file(path, manifest, lexicon)) for path in asked.transcripts]
    written = []
    for path, scores in found:
        whole = overall(scores, settings.bootstrap_samples, settings.confidence, params.seed)
        print(table(path, scores, whole, settings.confidence), flush=True)
        written.append(as_json(path, scores, whole))
        if without := [name for name, texts in scores.items() if not texts]:
            print(f"no text in {path} about: {', '.join(without)}", file=sys.stderr)
    if asked.json is not None:
        write_json(asked.json, written)


if __name__ == "__main__":
    run_stage(main)
