"""Stage curriculum: selects the texts of each phase's samples.

in: data/prepared, data/tokenizer; params seed, sft.{max_len, fit, question_share, questions, phases}, and those that
decide how many tokens a picture takes.
out: data/sft/<phase>/{samples.parquet, validation.parquet, summary.json}; a folder per phase, so that DVC skips phases
with unchanged data
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
from stages.common.data.samples import VALIDATION_ROWS, Sample, Samples, count_targets, cut
from stages.common.data.shards import picture_starts, read_rows

_DESCRIPTIONS = ("description", "far_first")  # tasks whose answers describe the whole picture

Row = dict[str, Any]


def fit_answer(sentences: Sequence[str], max_len: int, fit: str, encoder: Encoder) -> list[str]:
    """The sentences of an answer that fit in ``max_len`` tokens: the leading ones, or (``filter``) all or none."""
    kept: list[str] = []
    used = 0
    for sentence in sentences:
        used += len(encoder.ids(sentence))
        if used > max_len:
            # White space between sentences is left out at the end.
            return [] if fit == "filter" or not kept else [*kept[:-1], kept[-1].rstrip()]
        kept.append(sentence)
    return kept


class Fit(NamedTuple):
    """A length limit in tokens. ``how`` is sentence or filter, which limit the answer, or cut, which limits the whole
    sequence: pictures of ``image_tokens`` each, prompt and answer."""

    how: str
    max_len: int
    image_tokens: int


class PhaseSamples(NamedTuple):
    """``dropped``: number of answers that did not fit. ``longest``: tokens of the longest answer kept."""

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
    """Samples until they hold ``target_tokens`` targets, or fewer if almost nothing fits; None: all.

    ``dialogues`` are pairs (row, texts); the pictures of row r have the numbers ``starts[r]`` to ``starts[r + 1]``.
    The world's samples are sorted: descriptions before questions, as in files concatenated from several sources. In a
    random order, training without shuffling would not differ from training with it.
    """
    image_id = encoder.token_id(IMAGE)
    dropped = longest = 0
    is_question: list[bool] = []  # per sample: whether it holds questions of the world

    def samples() -> Iterator[Sample]:
        nonlocal dropped, longest
        targets = found = 0
        total, unit = (len(starts) - 1, "row") if target_tokens is None else (target_tokens, "token")
        with tqdm(total=total, unit=unit, desc=f"curriculum (at most {fit.max_len} tokens)") as bar:
            for number, dialogue in dialogues:
                if target_tokens is not None and targets >= target_tokens:
                    break
                turns = fit_dialogue(dialogue, fit, encoder)
                pictures = sum(question.count(IMAGE) for question, _ in turns)
                sample = (range(starts[number], starts[number] + pictures), *encoder.dialogue(turns)) if turns else None
                if sample and fit.how == "cut":
                    sample = cut(sample, image_id, fit.image_tokens, fit.max_len)
                new_targets = count_targets(sample[2]) if sample else 0
                dropped += len(dialogue) - len(turns) if new_targets else len(dialogue)
                if new_targets:
                    found += 1
                    targets += new_targets
                    longest = max(longest, *(sum(map(len, map(encoder.ids, answer))) for _, answer in turns))
                    is_question.append(dialogue[0]["task"] not in ("turn", *_DESCRIPTIONS))
                    bar.update(1 if target_tokens is None else new_targets)
                    yield sample
                elif target_tokens is not None and dropped > 10 * (found + 1000):
                    break  # almost nothing fits

    found = Samples.of(samples())
    if any(is_question):
        found = Samples.of(found[number] for number in np.argsort(is_question, kind="stable"))
    return PhaseSamples(found, dropped, min(longest, fit.max_len))


def fit_dialogue(dialogue: Sequence[Row], fit: Fit, encoder: Encoder) -> list[tuple[str, Sequence[str]]]:
    """(question, answer sentences) of the turns whose answers fit.

    The world's questions are independent of each other, so those that do not fit are left out; the picture precedes the
    first one kept. Turns of a dialogue from a file depend on earlier ones, so it ends before the first that does not
    fit. For ``cut`` all turns are returned: the whole sequence is cut off later.
    """
    dependent = dialogue[0]["task"] == "turn"
    turns: list[tuple[str, Sequence[str]]] = []
    for text in dialogue:
        answer = text["answer"] or [""]
        kept = answer if fit.how == "cut" else fit_answer(answer, fit.max_len, fit.how, encoder)
        if kept:
            question = text["question"] if dependent or turns else with_image(text["question"])
            turns.append((question, kept))
        elif dependent:
            break
    return turns


def file_dialogues(rows: Callable[[], Iterable[Row]], passes: int | None) -> Iterator[tuple[int, list[Row]]]:
    """(row number, texts) of a file's rows, each one dialogue, in the order of the file in every phase."""
    for _ in count() if passes is None else range(passes):
        for number, row in enumerate(rows()):
            yield number, row["texts"]


def scene_dialogues(
    rows: Sequence[Row], passes: int | None, question_share: float, questions: int, seed: int
) -> Iterator[tuple[int, list[Row]]]:
    """(scene number, texts): a random description or some questions of each scene, other ones in every pass.

    The order of the scenes is the same in every phase, so that phases differ in the length of the texts and not in the
    pictures.
    """
    order = list(range(len(rows)))
    random.Random(f"{seed}/curriculum").shuffle(order)
    for number_of_pass in count() if passes is None else range(passes):
        for number in order:
            rng = random.Random(f"{seed}/curriculum/{number_of_pass}/{number}")
            texts = rows[number]["texts"]
            if rng.random() < question_share:
                asked = [t for t in texts if t["task"] not in _DESCRIPTIONS]  # a caption answers a question, too
                yield number, rng.sample(asked, min(questions, len(asked)))
            else:
                yield number, [rng.choice([t for t in texts if t["task"] in _DESCRIPTIONS])]


def token_budget(name: str, sft: SftParams, counted: Mapping[str, int]) -> int | None:
    """The target tokens that a phase should have; None: every row once. ``counted`` holds those of finished phases.

    Raises InputError if a phase should match a chain whose tokens the phases before it have used up already.
    """
    phase = sft.phases[name]
    if phase.match is None:
        return phase.target_tokens
    total = sum(counted[link] for link in sft.chain(phase.match))
    before = sum(counted[link] for link in sft.chain(name)[:-1])
    if before >= total:
        raise InputError(
            f"params.yaml: sft.phases.{name}.match: the phases before it hold {before} target tokens already, and the "
            f"chain of {phase.match} holds {total}; lower their target_tokens"
        )
    return total - before


def main() -> None:
    params = load_params()
    sft = params.sft
    encoder = Encoder(load_tokenizer())
    grid = params.data.image_size // params.vision.patch_size
    tokens = image_tokens(params.model.projector, grid)

    def dialogues_of(split: str, limit: int | None) -> Callable[..., Iterator[tuple[int, list[Row]]]]:
        rows = partial(read_rows, split, ["texts"], limit)
        if params.data.source == "world":
            asked = {"question_share": sft.question_share, "questions": sft.questions}
            return partial(scene_dialogues, list(rows()), **asked, seed=params.seed)
        return partial(file_dialogues, rows)

    dialogues, starts = dialogues_of("train", None), picture_starts("train")
    validation, validation_starts = dialogues_of("validation", VALIDATION_ROWS), picture_starts("validation")
    counted: dict[str, int] = {}
    order = sorted(sft.phases, key=lambda name: (sft.phases[name].match is not None, len(sft.chain(name))))
    with atomic_directory(PHASES) as folder:
        for name in order:
            budget = token_budget(name, sft, counted)
            fit = Fit(sft.fit_of(name), sft.max_len_of(name), tokens)
            passes = 1 if budget is None else None
            samples, dropped, longest = phase_samples(dialogues(passes=passes), starts, fit, budget, encoder)
            counted[name] = samples.target_tokens
            if counted[name] < (budget or 1):
                where = f"phases.{name}.max_len" if sft.phases[name].max_len else "max_len"
                raise InputError(
                    f"params.yaml: sft.{where}: almost no answer fits in {sft.max_len_of(name)} tokens with fit "
                    f"{sft.fit_of(name)}, so phase {name} finds {counted[name]} of {budget or 'all'} target tokens; "
                    "raise it"
                )
            (folder / name).mkdir()
            samples.write(folder / name / "samples.parquet")
            held_out = phase_samples(validation(passes=1), validation_starts, fit, None, encoder).samples
            held_out.write(folder / name / "validation.parquet")
            summary = {
                "phase": name,
                "samples": len(samples),
                "target_tokens": counted[name],
                "validation_samples": len(held_out),
                "dropped": dropped,
                "max_len": sft.max_len_of(name),
                "longest_answer": longest,
            }
            write_json(folder / name / "summary.json", summary)
            print(
                f"{name}: {len(samples)} samples, {counted[name]} target tokens, {dropped} answers dropped as too long"
            )
    for name, phase in sft.phases.items():
        if phase.match is not None:
            one, other = (sum(counted[link] for link in sft.chain(end)) for end in (phase.match, name))
            print(f"target tokens per epoch: {one} in the chain of {phase.match}, {other} in that of {name}")


if __name__ == "__main__":
    run_stage(main)
