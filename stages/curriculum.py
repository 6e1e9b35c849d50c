"""Stage curriculum: decides, per phase, which text each sample shows.

in: data/prepared, data/tokenizer; params seed, sft.{max_len, fit, question_share, phases}.
out: data/sft/<phase>/{samples.parquet, summary.json}, one folder each, so that DVC's hashes cut off what is unchanged
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from tqdm import tqdm

from stages.common.chat import IMAGE, Encoder, before_text, load_tokenizer
from stages.common.errors import InputError, run_stage
from stages.common.files import whole_folder, write_json
from stages.common.params import SftParams, load_params
from stages.common.paths import PHASES
from stages.common.samples import Sample, Samples, count_targets
from stages.common.shards import picture_starts, read_rows

_QUESTIONS_PER_SAMPLE = 4

Row = dict[str, Any]


def fit_answer(sentences: Sequence[str], max_len: int, fit: str, encoder: Encoder) -> list[str]:
    """What ``max_len`` tokens show of an answer: its leading whole sentences, or (``filter``) all or nothing."""
    shown: list[str] = []
    used = 0
    for sentence in sentences:
        used += len(encoder.ids(sentence))
        if used > max_len:
            return [] if fit == "filter" else shown
        shown.append(sentence)
    return shown


class PhaseSamples(NamedTuple):
    """``dropped``: answers that did not fit. ``longest``: tokens of the longest answer that did."""

    samples: Samples
    dropped: int
    longest: int


def phase_samples(
    rows: Sequence[Row],
    starts: Sequence[int],
    max_len: int,
    fit: str,
    target_tokens: int | None,
    question_share: float,
    encoder: Encoder,
    seed: int,
) -> PhaseSamples:
    """Samples until they hold ``target_tokens`` targets, fewer where next to nothing fits; None: every row once.

    The pictures of row r have the numbers ``starts[r]`` to ``starts[r + 1]``. Every phase walks through the rows in
    the same order, so that phases differ in the length of the texts and not in the pictures. One phase's samples do
    not depend on any other phase.
    """
    dropped = longest = 0

    def samples() -> Iterator[Sample]:
        nonlocal dropped, longest
        targets = found = 0
        total, unit = (len(rows), "row") if target_tokens is None else (target_tokens, "token")
        with tqdm(total=total, unit=unit, desc=f"curriculum (at most {max_len} tokens)") as bar:
            for number, dialogue in _dialogues(rows, target_tokens is None, question_share, seed):
                if target_tokens is not None and targets >= target_tokens:
                    break
                turns = fit_dialogue(dialogue, max_len, fit, encoder)
                dropped += len(dialogue) - len(turns)
                if turns:
                    found += 1
                    lengths = [sum(len(encoder.ids(part)) for part in answer) for _, answer in turns]
                    longest = max(longest, *lengths)
                    shown = sum(question.count(IMAGE) for question, _ in turns)
                    ids, labels = encoder.dialogue(turns)
                    targets += count_targets(labels)
                    bar.update(1 if target_tokens is None else count_targets(labels))
                    yield range(starts[number], starts[number] + shown), ids, labels
                elif target_tokens is not None and dropped > 10 * (found + 1000):
                    break  # next to nothing fits

    return PhaseSamples(Samples.of(samples()), dropped, longest)


def fit_dialogue(dialogue: Sequence[Row], max_len: int, fit: str, encoder: Encoder) -> list[tuple[str, Sequence[str]]]:
    """(question, answer sentences) of the turns whose answers fit.

    The world's questions stand alone, so one that does not fit is left out; the picture stands before the first. Turns
    of a dialogue read from a file build on each other, so it ends where one does not fit. ``cut`` takes all: what is
    cut off is counted in tokens of the whole sequence, which is known where image tokens are.
    """
    together = dialogue[0]["task"] == "turn"
    turns: list[tuple[str, Sequence[str]]] = []
    for text in dialogue:
        answer = text["answer"] or [""]
        shown = answer if fit == "cut" else fit_answer(answer, max_len, fit, encoder)
        if shown:
            question = text["question"] if together or turns else before_text(text["question"])
            turns.append((question, shown))
        elif together:
            break
    return turns


def _dialogues(rows: Sequence[Row], once: bool, question_share: float, seed: int) -> Iterator[tuple[int, list[Row]]]:
    """What a row's texts make, row by row: as many rounds as are asked for, or ``once`` and in the rows' own order.

    A row of a file is one dialogue. A scene gives a description or some questions, other ones in every round.
    """
    order = list(range(len(rows)))
    if not once:
        random.Random(f"{seed}/curriculum").shuffle(order)
    for lap in count() if not once else range(1):
        for number in order:
            texts = rows[number]["texts"]
            if texts[0]["task"] == "turn":
                yield number, texts
                continue
            rng = random.Random(f"{seed}/curriculum/{lap}/{number}")
            if rng.random() < question_share:
                questions = [t for t in texts if t["task"] != "description"]  # a caption answers one, too
                yield number, rng.sample(questions, min(_QUESTIONS_PER_SAMPLE, len(questions)))
            else:
                yield number, [rng.choice([t for t in texts if t["task"] == "description"])]


def wanted_tokens(name: str, sft: SftParams, counted: Mapping[str, int]) -> int | None:
    """The budget of a phase, given what the phases that it hangs on were found to hold; None: every row once.

    Raises InputError for a phase that is to match a chain which the phases before it have used up already.
    """
    phase = sft.phases[name]
    if phase.match is None:
        return phase.target_tokens
    there = sum(counted[link] for link in sft.chain(phase.match))
    before = sum(counted[link] for link in sft.chain(name)[:-1])
    if before >= there:
        raise InputError(
            f"params.yaml: sft.phases.{name}.match: the phases before it hold {before} target tokens already, and the "
            f"chain of {phase.match} holds {there}; lower their target_tokens"
        )
    return there - before


def main() -> None:
    params = load_params()
    sft = params.sft
    encoder = Encoder(load_tokenizer())
    rows = list(read_rows("train", ["texts"]))
    starts = picture_starts("train")
    counted: dict[str, int] = {}
    order = sorted(sft.phases, key=lambda name: (sft.phases[name].match is not None, len(sft.chain(name))))
    with whole_folder(PHASES) as folder:
        for name in order:
            wanted = wanted_tokens(name, sft, counted)
            samples, dropped, longest = phase_samples(
                rows, starts, sft.limit(name), sft.fitted(name), wanted, sft.question_share, encoder, params.seed
            )
            counted[name] = samples.target_tokens
            if counted[name] < (wanted or 1):
                where = f"phases.{name}.max_len" if sft.phases[name].max_len else "max_len"
                raise InputError(
                    f"params.yaml: sft.{where}: next to no answer fits in {sft.limit(name)} tokens with fit "
                    f"{sft.fitted(name)}, so phase {name} finds {counted[name]} of {wanted or 'all'} target tokens; "
                    "raise it"
                )
            (folder / name).mkdir()
            samples.write(folder / name / "samples.parquet")
            summary = {
                "phase": name,
                "samples": len(samples),
                "target_tokens": counted[name],
                "dropped": dropped,
                "max_len": sft.limit(name),
                "longest_answer": longest,
                "cut": sft.limit(name) if sft.fitted(name) == "cut" else None,
            }
            write_json(folder / name / "summary.json", summary)
            print(f"{name}: {len(samples)} samples, {counted[name]} target tokens, {dropped} answers did not fit")
    for name, phase in sft.phases.items():
        if phase.match is not None:
            one, other = (sum(counted[link] for link in sft.chain(end)) for end in (phase.match, name))
            print(f"target tokens an epoch: {one} up to {phase.match}, {other} up to {name}, which matches it")


if __name__ == "__main__":
    run_stage(main)
