"""Stage score@checkpoint, and scores of texts about photographs from any model.

python -m stages.evaluate.score CHECKPOINT
python -m stages.evaluate.score --manifest data/eval/photographs.yaml TRANSCRIPTS [TRANSCRIPTS ...]

The stage reads reports/answers/<checkpoint> (what stage answer wrote), data/prepared and data/eval, and writes
reports/evaluation/<checkpoint>/{metrics.json, resamples.parquet, answers.jsonl, samples.txt, provenance.json}, and the
same in epoch-<number>/ for each checkpoint that was kept after an earlier epoch, which is judged on validation scenes.
It takes seconds: no model runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory
from stages.common.core.paths import EVALUATIONS
from stages.common.core.stage import run_stage
from stages.common.data.shards import read_rows
from stages.common.tracking.evaluations import log_evaluation
from stages.evaluate.files import answers_folder, epoch_folders, read_model, read_provenance
from stages.evaluate.score.dialogues import score_dialogues
from stages.evaluate.score.lexicon import LEXICON
from stages.evaluate.score.results import Results, metrics_of, write_results
from stages.evaluate.score.transcript_scores import score_transcripts
from stages.evaluate.score.world import score_world

# Printed, where they are measured.
_PRINTED = ("loss", "chair_i", "misnamed", "precision", "recall", "pope_accuracy", "two_alternative", "length")


def score_checkpoint(name: str, params: Params) -> None:
    """Score a checkpoint and those of its earlier epochs. Raises InputError where stage answer has not run."""
    score = score_world if params.data.source == "world" else score_dialogues
    own = answers_folder(name)
    scored: list[tuple[dict[str, Any], Results]] = []
    with atomic_directory(EVALUATIONS / name) as folder:
        for source in (*epoch_folders(name), own):
            model, results = read_model(source), score(source, params, "test" if source == own else "validation")
            target = folder / source.relative_to(own)
            target.mkdir(exist_ok=True)
            write_results(target, model, read_provenance(source), results)
            scored.append((model, results))
    for model, results in scored:
        if params.wandb.mode != "disabled":
            _log(model, results, params)
        estimates = results.estimates
        values = (f"{metric} {estimates[metric].value:.3f}" for metric in _PRINTED if metric in estimates)
        print(f"{model['checkpoint']}: " + ", ".join(values))


def _log(model: dict[str, Any], results: Results, params: Params) -> None:
    """To W&B: metrics, and the answers about the fixed pictures."""
    fixed = [row for row in results.rows if row["split"] == "fixed"]
    pictures = {row["id"]: row["images"][0]["bytes"] for row in read_rows("fixed", ["id", "images"])}
    vision = model["parameters_vision"]
    sizes = {"total": model["parameters"] + vision, "vision": vision}
    intervals = metrics_of(model, results)["intervals"]
    log_evaluation(model["checkpoint"], params, {"parameters": sizes}, intervals, fixed, pictures)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.evaluate.score",
        description="Score what a checkpoint has answered or, with --manifest, texts about photographs.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="CHECKPOINT | TRANSCRIPTS",
        help="a checkpoint; with --manifest: files of texts, as JSON lines or in the notes' [Image]: form",
    )
    parser.add_argument("--manifest", type=Path, help="what is in the pictures, YAML")
    parser.add_argument("--lexicon", type=Path, default=LEXICON, help=f"the names of things in texts, YAML ({LEXICON})")
    parser.add_argument("--json", type=Path, help="write the metrics and every mention to this file")
    return parser.parse_args()


def main() -> None:
    arguments = _parse_arguments()
    params = load_params()
    if arguments.manifest is not None:
        transcripts = [Path(path) for path in arguments.inputs]
        score_transcripts(transcripts, arguments.manifest, arguments.lexicon, arguments.json, params)
        return
    if len(arguments.inputs) != 1 or arguments.inputs[0] not in params.checkpoints:
        raise InputError(
            f"usage: python -m stages.evaluate.score CHECKPOINT, one of {', '.join(params.checkpoints)}; or, for "
            "texts in files, --manifest MANIFEST TRANSCRIPTS"
        )
    score_checkpoint(arguments.inputs[0], params)


if __name__ == "__main__":
    run_stage(main)
