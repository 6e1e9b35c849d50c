"""Stage curriculum: decides, per phase, which text each sample shows.

in: data/prepared, data/tokenizer; params seed, sft.{max_len, fit, question_share, phases}.
out: data/sft/<phase>/{samples.parquet, summary.json}, one folder each, so that DVC's hashes cut off what is unchanged
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from stages.common.chat import Encoder, load_tokenizer
from stages.common.errors import InputError, run_stage
from stages.common.files import whole_folder, write_json
from stages.common.params import SftParams, load_params
from stages.common.paths import PHASES
from stages.common.samples import Sample, count_targets, write_samples
from stages.common.shards import read_rows

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


def phase_samples(
    rows: Sequence[Row], max_len: int, target_tokens: int, sft: SftParams, encoder: Encoder, seed: int
) -> tuple[list[Sample], int, int]:
    """Samples until they hold ``target_tokens`` targets, how many answers did not fit, and the longest, in tokens;
    fewer samples where next to nothing fits.

    Every phase walks through the pictures in the same order, so that phases differ in the length of the texts
    and not in the pictures. One phase's samples do not depend on any other phase.
    """
    order = list(range(len(rows)))
    random.Random(f"{seed}/curriculum").shuffle(order)
    samples: list[Sample] = []
    targets = dropped = longest = 0
    with tqdm(total=target_tokens, unit="token", desc=f"curriculum (at most {max_len} tokens)") as bar:
        for number, dialogue in _dialogues(rows, order, sft.question_share, seed):
            if targets >= target_tokens:
                break
            turns = [(t["question"], fit_answer(t["answer"], max_len, sft.fit, encoder)) for t in dialogue]
            turns = [turn for turn in turns if turn[1]]
            dropped += len(dialogue) - len(turns)
            if turns:
                longest = max(longest, *(sum(len(encoder.ids(part)) for part in answer) for _, answer in turns))
                sample = (number, *encoder.dialogue(turns, image=True))
                samples.append(sample)
                targets += count_targets([sample])
                bar.update(count_targets([sample]))
            elif dropped > 10 * (len(samples) + 1000):
                break  # next to nothing fits
    return samples, dropped, longest


def _dialogues(
    rows: Sequence[Row], order: Sequence[int], question_share: float, seed: int
) -> Iterator[tuple[int, list[Row]]]:
    """Endless: a description or some questions of each picture in turn, other ones in every round."""
    lap = 0
    while True:
        for number in order:
            rng = random.Random(f"{seed}/curriculum/{lap}/{number}")
            texts = rows[number]["texts"]
            if rng.random() < question_share:
                questions = [t for t in texts if t["task"] != "description"]  # a caption answers one, too
                yield number, rng.sample(questions, min(_QUESTIONS_PER_SAMPLE, len(questions)))
            else:
                yield number, [rng.choice([t for t in texts if t["task"] == "description"])]
        lap += 1


def main() -> None:
    params = load_params()
    sft = params.sft
    encoder = Encoder(load_tokenizer())
    rows = list(read_rows("train", ["texts"]))
    counted: dict[str, int] = {}
    with whole_folder(PHASES) as folder:
        for name, phase in sorted(sft.phases.items(), key=lambda item: item[1].match is not None):
            wanted = phase.target_tokens or sum(counted[link] for link in sft.chain(phase.match))
            samples, dropped, longest = phase_samples(rows, sft.limit(name), wanted, sft, encoder, params.seed)
            counted[name] = count_targets(samples)
            if counted[name] < wanted:
                where = f"phases.{name}.max_len" if phase.max_len else "max_len"
                raise InputError(
                    f"params.yaml: sft.{where}: next to no answer fits in {sft.limit(name)} tokens with sft.fit "
                    f"{sft.fit}, so phase {name} finds {counted[name]} of {wanted} target tokens; raise it"
                )
            (folder / name).mkdir()
            write_samples(folder / name / "samples.parquet", samples)
            summary = {
                "phase": name,
                "samples": len(samples),
                "target_tokens": counted[name],
                "dropped": dropped,
                "max_len": sft.limit(name),
                "longest_answer": longest,
            }
            write_json(folder / name / "summary.json", summary)
            print(f"{name}: {len(samples)} samples, {counted[name]} target tokens, {dropped} answers did not fit")
    for name, phase in sft.phases.items():
        if phase.match is not None:
            one, other = (sum(counted[link] for link in sft.chain(end)) for end in (phase.match, name))
            print(f"target tokens an epoch: {one} up to {phase.match}, {other} up to {name}, its control")


if __name__ == "__main__":
    run_stage(main)
