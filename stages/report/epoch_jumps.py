"""Does the loss jump where an epoch ends, with and without shuffling?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stages.common.config.params import Params
from stages.report.run.figures import Relation
from stages.report.run.load_run import Run
from stages.report.run.loss_diagnostics import Jump
from stages.report.run.metric_specs import Metric
from stages.report.statements import Finding, Row, Statement, listing, summarise, unique

_NATS = Metric("", "", "lower", "", unit="nats", decimals=3)
_PHRASES: Mapping[Relation, str] = {
    "higher": "jumps up in",
    "lower": "falls in",
    "unclear": "does nothing unusual in",
    "undefined": "is undefined in",
}
_RESULTS: Mapping[Relation, str] = {"higher": "jumps up", "lower": "falls", "unclear": "nothing unusual"}


def epoch_jumps(run: Run) -> Finding | None:
    """The change of the loss from one epoch to the next in each phase; None if no loss was logged."""
    if not run.diagnostics:
        return None
    rows = _rows(run)
    if not rows:
        statement = Statement("No phase has two epochs with enough logged points to compare the loss between them.")
    else:
        statement = Statement(
            f"Where one epoch ends and the next begins, the loss {summarise(rows, _PHRASES, 'every phase')}."
            f"{_same_samples(run)}{_sorted_file(run, rows)}",
            ("order of samples", "change there, nats", "expected from inside epochs", "positions inside"),
            tuple(rows),
        )
    return Finding(
        "training", "Does the loss jump where an epoch ends?", _headline(run, rows), (statement,), _method(run)
    )


def jump_relation(jump: Jump, confidence: float) -> Relation:
    """Whether the change at an epoch's end lies above or below what changes inside epochs let expect."""
    low, high = jump.expected(confidence)
    return "higher" if jump.size > high else "lower" if jump.size < low else "unclear"


def order_pairs(params: Params) -> list[tuple[str, str]]:
    """(shuffled checkpoint, unshuffled checkpoint) of phases that differ in nothing else."""
    sft = params.sft
    return [
        (f"sft-{one}", f"sft-{other}")
        for one, phase in sft.phases.items()
        for other, candidate in sft.phases.items()
        if sft.shuffle_of(one) and not sft.shuffle_of(other)
        if phase.model_copy(update={"shuffle": None}) == candidate.model_copy(update={"shuffle": None})
    ]


def _rows(run: Run) -> list[Row]:
    rows = []
    confidence = run.params.evaluate.confidence
    for name, diagnostics in run.diagnostics.items():
        for jump in diagnostics.jumps:
            relation = jump_relation(jump, confidence)
            cells = (
                "shuffled" if diagnostics.shuffle else "unshuffled",
                _NATS.change(jump.size),
                "[{}, {}]".format(*map(_NATS.change, jump.expected(confidence))),
                str(jump.positions),
            )
            rows.append(Row(name, cells, relation, _RESULTS[relation]))
    return rows


def _same_samples(run: Run) -> str:
    pairs = [f"{other} has the samples of {one}, unshuffled" for one, other in order_pairs(run.params)]
    return f" {'; '.join(pairs)}." if pairs else ""


def _sorted_file(run: Run, rows: Sequence[Row]) -> str:
    """Where the jump of an unshuffled phase of the built-in world comes from."""
    unshuffled = unique(row.checkpoint for row in rows if not run.diagnostics[row.checkpoint].shuffle)
    if not unshuffled or run.params.data.source != "world":
        return ""
    return (
        " The samples of the built-in world are sorted by kind of text: descriptions first, questions last. "
        f"Without shuffling ({listing(unshuffled)}), an epoch ends with questions and the next one begins with "
        "descriptions, so that the loss before and after this position is that of two kinds of text. A jump there "
        "shows what a sorted file does; it is no measurement of MiniMind-V's own data."
    )


def _method(run: Run) -> str:
    windows = sorted({jump.window for diagnostics in run.diagnostics.values() for jump in diagnostics.jumps})
    if not windows:
        return ""
    points = " to ".join(map(str, unique((windows[0], windows[-1]))))
    return (
        f"Change: mean of the {points} logged points after the end of an epoch minus that before it; next to it the "
        f"{100 * run.params.evaluate.confidence:g} % prediction interval of the same difference at positions inside "
        "epochs. A change outside it is called a jump or fall."
    )


def _headline(run: Run, rows: Sequence[Row]) -> str:
    """Where two phases differ in nothing but shuffling, these two; all phases otherwise."""
    paired = {name for pair in order_pairs(run.params) for name in pair}
    counted = [row for row in rows if row.checkpoint in paired] or rows
    up = {True: None, False: None}
    for shuffled in up:
        own = [row.relation == "higher" for row in counted if run.diagnostics[row.checkpoint].shuffle is shuffled]
        up[shuffled] = any(own) if own else None
    jumps, none = "In this run, the loss jumps up where an epoch ends", "No clear jump in this run where an epoch ends"
    return {
        (None, None): "Not measured in this run: no phase has two epochs with enough logged points",
        (True, None): f"{jumps}, with shuffling",
        (None, True): f"{jumps}, without shuffling",
        (False, None): f"{none}, with shuffling",
        (None, False): f"{none}, without shuffling",
        (True, True): f"{jumps}, with and without shuffling",
        (False, True): f"{jumps} without shuffling, but not with it",
        (True, False): f"{jumps} with shuffling, but not without it",
        (False, False): f"{none}, with or without shuffling",
    }[up[True], up[False]]
