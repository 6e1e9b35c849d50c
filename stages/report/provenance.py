"""The software and hardware that trained the checkpoints of a run and generated their answers."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from stages.report.run.load_run import Run
from stages.report.run.records import Provenance
from stages.report.statements import listing

_STEPS = {"training": "Training", "answer": "Answers"}


class ProvenanceText(NamedTuple):
    """``summary``: what most checkpoints have; ``differences``: a sentence for each checkpoint that differs."""

    summary: str
    differences: tuple[str, ...]


def provenance_text(run: Run) -> ProvenanceText | None:
    """None if no checkpoint has recorded its provenance."""
    summaries, differences = {}, []
    for step, title in _STEPS.items():
        found = {
            name: provenance
            for name, checkpoint in run.checkpoints.items()
            if checkpoint.provenance and (provenance := getattr(checkpoint.provenance, step))
        }
        if not found:
            continue
        ((common, _),) = Counter(found.values()).most_common(1)
        summaries[title] = describe(common)
        differences += [
            f"{name}, {title.lower()}: {_differing(provenance, common)}"
            for name, provenance in found.items()
            if provenance != common
        ]
    missing = [name for name, checkpoint in run.checkpoints.items() if checkpoint.provenance is None]
    if not summaries:
        return None
    if missing:
        differences.append(f"{listing(missing)}: not recorded")
    if len(set(summaries.values())) == 1:
        summaries = {" and ".join(summaries).capitalize(): next(iter(summaries.values()))}
    return ProvenanceText(" ".join(f"{title}: {text}." for title, text in summaries.items()), tuple(differences))


def describe(provenance: Provenance) -> str:
    """torch 2.7.1, transformers 4.55.0, Intel Xeon, bf16, not compiled, 1 process"""
    return ", ".join(_parts(provenance).values())


def _parts(provenance: Provenance) -> dict[str, str]:
    return {
        "torch": f"torch {provenance.torch}",
        "transformers": f"transformers {provenance.transformers}",
        "processor": provenance.processor,
        "precision": provenance.precision,
        "compiled": "compiled" if provenance.compiled else "not compiled",
        "processes": f"{provenance.processes} process{'' if provenance.processes == 1 else 'es'}",
    }


def _differing(provenance: Provenance, common: Provenance) -> str:
    own, usual = _parts(provenance), _parts(common)
    return ", ".join(f"{own[key]} instead of {usual[key]}" for key in own if own[key] != usual[key])
