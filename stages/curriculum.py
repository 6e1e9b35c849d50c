"""Stage curriculum: decides, per phase, which text each sample shows.

in: data/prepared, data/tokenizer; params seed, sft.{max_len, fit, question_share, phases}, and what decides how many
tokens a picture takes.
out: data/sft/<phase>/{samples.parquet, summary.json}, one folder each, so that DVC's hashes cut off what is unchanged
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from model.vlm.grids import image_tokens
from stages.common.config.params import load_params
from stages.common.config.sft import SftParams
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory, write_json
from stages.common.core.paths import PHASES
from stages.common.core.stage import run_stage
from stages.common.data.chat import IMAGE, Encoder, load_tokenizer, with_image
from stages.common.data.samples import Sample, Samples, count_targets, cut
from stages.common.data.shards import picture_starts, read_rows

_QUESTIONS_PER_SAMPLE = 4

Row = dict[str, Any]


def fit_answer(sentences: Sequence[str], max_len: int, fit: str, encoder: Encoder) -> list[str]:
    """What ``max_len`` tokens show of an answer: its leading whole sentences, or (``filter``) all or nothing."""
    shown: list[str] = []
    used = 0
    for sentence in sentences:
        used += len(encoder.ids(sentence))
        if used > max_len:
            # What would stand between two sentences has no place at the end.
            return [] if fit == "filter" or not shown else [*shown[:-1], shown[-1].rstrip()]
        shown.append(sentence)
    return shown


class Fit(NamedTuple):
    """``how``: sentence, filter or cut; for cut, ``max_len`` counts prompt and pictures, of ``image_tokens`` each."""

    how: str
    max_len: int
    image_tokens: int


class PhaseSamples(NamedTuple):
    """``dropped``: answers that did not fit. ``longest``: tokens of the longest answer that did."""

    samples: Samples
    dropped: int
    longest: int


def phase_samples(
    dialogues: Iterable[tuple[int, list[Row]]],
    starts: Sequence[int],
    fit: Fit,
    target_tokens: int | None,
    encoder: Encoder,
) -> PhaseSamples:
    """Samples until they hold ``target_tokens`` targets, fewer where next to nothing fits; None: all there are.

    ``dialogues`` are (row, its texts); the pictures of row r have the numbers ``starts[r]`` to ``starts[r + 1]``. The
    world's descriptions come before its questions, as in files that were put together source by source: in a random
    order, training without shuffling would be no different from training with it.
    """
    image_id = encoder.token_id(IMAGE)
    dropped = longest = 0
    asks: list[bool] = []  # per sample: whether it holds questions of the world

    def samples() -> Iterator[Sample]:
        nonlocal dropped, longest
        targets = found = 0
        total, unit = (len(starts) - 1, "row") if target_tokens is None else (target_tokens, "token")
        with tqdm(total=total, unit=unit, desc=f"curriculum (at most {fit.max_len} tokens)") as bar:
            for number, dialogue in dialogues:
                if target_tokens is not None and targets >= target_tokens:
                    break
                turns = fit_dialogue(dialogue, fit, encoder)
                shown = sum(question.count(IMAGE) for question, _ in turns)
                sample = (range(starts[number], starts[number] + shown), *encoder.dialogue(turns)) if turns else None
                if sample and fit.how == "cut":
                    sample = cut(sample, image_id, fit.image_tokens, fit.max_len)
                learnt = count_targets(sample[2]) if sample else 0
                dropped += len(dialogue) - len(turns) if learnt else len(dialogue)
                if learnt:
                    found += 1
                    targets += learnt
                    longest = max(longest, *(sum(map(len, map(encoder.ids, answer))) for _, answer in turns))
                    asks.append(dialogue[0]["task"] not in ("turn", "description"))
                    bar.update(1 if target_tokens is None else learnt)
                    yield sample
                elif target_tokens is not None and dropped > 10 * (found + 1000):
                    break  # next to nothing fits

    found = Samples.of(samples())
    if any(asks):
        found = Samples.of(found[number] for number in np.argsort(asks, kind="stable"))
    return PhaseSamples(found, dropped, min(longest, fit.max_len))


def fit_dialogue(dialogue: Sequence[Row], fit: Fit, encoder: Encoder) -> list[tuple[str, Sequence[str]]]:
    """(question, answer sentences) of the turns whose answers fit.

    The world's questions stand alone, so one that does not fit is left out; the picture stands before the first. Turns
    of a dialogue read from a file build on each other, so it ends where one does not fit. For ``cut``, which counts
    tokens of the whole sequence, all turns fit here.
    """
    together = dialogue[0]["task"] == "turn"
    turns: list[tuple[str, Sequence[str]]] = []
    for text in dialogue:
        answer = text["answer"] or [""]
        shown = answer if fit.how == "cut" else fit_answer(answer, fit.max_len, fit.how, encoder)
        if shown:
            question = text["question"] if together or turns else with_image(text["question"])
            turns.append((question, shown))
        elif together:
            break
    return turns


def file_dialogues(rows: Callable[[], Iterable[Row]], passes: int | None) -> Iterator[tuple[int, list[Row]]]:
    """Rows of a file, each one dialogue, in the order of the file: for every phase the same."""
    for _ in count() if passes is None else range(passes):
        for number, row in enumerate(rows()):
            yield number, row["texts"]


def scene_dialogues(
    rows: Sequence[Row], passes: int | None, question_share: float, seed: int
) -> Iterator[tuple[int, list[Row]]]:
    """A description or some questions of each scene in turn, other ones in every lap.

    Every phase walks through the scenes in the same order, so that phases differ in the length of the texts and not
    in the pictures.
    """
    order = list(range(len(rows)))
    random.Random(f"{seed}/curriculum").shuffle(order)
    for lap in count() if passes is None else range(passes):
        for number in order:
            rng = random.Random(f"{seed}/curriculum/{lap}/{number}")
            texts = rows[number]["texts"]
            if rng.random() < question_share:
                questions = [t for t in texts if t["task"] != "description"]  # a caption answers one, too
                yield number, rng.sample(questions, min(_QUESTIONS_PER_SAMPLE, len(questions)))
            else:
                yield number, [rng.choice([t for t in texts if t["task"] == "description"])]


def token_budget(name: str, sft: SftParams, counted: Mapping[str, int]) -> int | None:
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
    grid = params.data.image_size // params.vision.patch_size
    tokens = image_tokens(params.model.projector, grid)
    starts = picture_starts("train")
    if params.data.source == "world":
        scenes = list(read_rows("train", ["texts"]))
        dialogues = partial(scene_dialogues, scenes, question_share=sft.question_share, seed=params.seed)
    else:
        dialogues = partial(file_dialogues, partial(read_rows, "train", ["texts"]))
    counted: dict[str, int] = {}
    order = sorted(sft.phases, key=lambda name: (sft.phases[name].match is not None, len(sft.chain(name))))
    with atomic_directory(PHASES) as folder:
        for name in order:
            wanted = token_budget(name, sft, counted)
            fit = Fit(sft.fit_of(name), sft.max_len_of(name), tokens)
            passes = 1 if wanted is None else None
            samples, dropped, longest = phase_samples(dialogues(passes=passes), starts, fit, wanted, encoder)
            counted[name] = samples.target_tokens
            if counted[name] < (wanted or 1):
                where = f"phases.{name}.max_len" if sft.phases[name].max_len else "max_len"
                raise InputError(
                    f"params.yaml: sft.{where}: next to no answer fits in {sft.max_len_of(name)} tokens with fit "
                    f"{sft.fit_of(name)}, so phase {name} finds {counted[name]} of {wanted or 'all'} target tokens; "
                    "raise it"
                )
            (folder / name).mkdir()
            samples.write(folder / name / "samples.parquet")
            summary = {
                "phase": name,
                "samples": len(samples),
                "target_tokens": counted[name],
                "dropped": dropped,
                "max_len": sft.max_len_of(name),
                "longest_answer": longest,
            }
            write_json(folder / name / "summary.json", summary)
            print(f"{name}: {len(samples)} samples, {counted[name]} target tokens, {dropped} answers did not fit")
    for name, phase in sft.phases.items():
        if phase.match is not None:
            one, other = (sum(counted[link] for link in sft.chain(end)) for end in (phase.match, name))
            print(f"target tokens an epoch: {one} up to {phase.match}, {other} up to {name}, which matches it")


if __name__ == "__main__":
    run_stage(main)
