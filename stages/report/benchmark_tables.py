"""Tables of speed and memory, made from benchmarks/*.json, which the benchmarks write."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

from stages.common.core.errors import InputError
from stages.report.readme_tables import Language, Sources, markdown

MIB = 2**20
OTHERS = ("reference", "stock")
AMORTISED_EPOCHS = (1, 2, 4, 11)  # epochs over which the cost of the feature cache is amortised
_NAMES_ZH = {"ours": "本项目"}


def _read(sources: Sources, name: str) -> dict[str, Any]:
    path = sources.root / "benchmarks" / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}; restore it with `git checkout {path}`") from None


def _range(values: Sequence[float], decimals: int = 2, scale: float = 1.0) -> str:
    """1.35 (1.04 to 1.47): median, least and most of the rounds."""
    middle, least, most = (f"{scale * value:,.{decimals}f}" for value in values)
    return f"{middle} ({least} to {most})"


def training(name: str, sources: Sources, _: Language) -> str:
    """Rates, share of the peak and memory of each implementation, from training.json or training-amx.json."""
    found = _read(sources, name)
    rows = [["task", "implementation", "samples/s", "target tokens/s", "share of bf16 peak, %", "peak memory, MiB"]]
    for row in found["summary"]:
        rows.append(
            [
                row["task"],
                row["contender"],
                _range(row["samples_per_second"]),
                _range(row["target_tokens_per_second"], 0),
                _range(row["share_of_peak"], 0, 100),
                f"{row['peak_memory'] / MIB:,.0f}",
            ]
        )
    return f"{markdown(rows)}\n\n{_machine(found)}"


def _machine(found: Mapping[str, Any]) -> str:
    machine = found["machine"]
    peaks = [
        f"{1e-9 * median(run['peak'][dtype] for run in found['rounds']):,.0f} GFLOP/s in {dtype}"
        for dtype in ("bf16", "fp32")
    ]
    rounds = len(found["rounds"]) // len(found["summary"])
    return (
        f"Median of {rounds} rounds (least to most). {machine['name']}, {machine['cores']} cores, torch "
        f"{machine['torch']}; matrix products of the peak measurement: {' and '.join(peaks)}; encoding a picture takes "
        f"{1000 * found['encode']:.0f} ms."
    )


def ratios(name: str, sources: Sources, _: Language) -> str:
    """How many times as many samples a second ours trains, without and with the cost of the feature cache."""
    head = ["task", "ours against", "training alone", f"encoding amortised over {AMORTISED_EPOCHS[0]} epoch"]
    rows = [[*head, *(f"over {epochs} epochs" for epochs in AMORTISED_EPOCHS[1:])]]
    for row in _read(sources, name)["summary"]:
        if row["contender"] == "ours":
            for other in OTHERS:
                keys = [f"times_{other}", *(f"times_{other}_encoded_for_{epochs}" for epochs in AMORTISED_EPOCHS)]
                rows.append([row["task"], other, *(f"{_range(row[key], 1)} ×" for key in keys)])
    return markdown(rows)


def speed(sources: Sources, language: Language) -> str:
    """The short form of ``training`` and ``ratios``: medians only."""
    found = _read(sources, "training")
    by_key = {(row["task"], row["contender"]): row for row in found["summary"]}
    rows = [
        {
            "en": [
                "",
                "pretraining, samples/s",
                "SFT, samples/s",
                "pretraining, share of bf16 peak",
                "SFT, share of bf16 peak",
                "SFT, memory",
            ],
            "zh": ["", "预训练，样本/秒", "SFT，样本/秒", "预训练，占 bf16 峰值", "SFT，占 bf16 峰值", "SFT，内存"],
        }[language]
    ]
    for name in (*OTHERS, "ours"):
        pair = [by_key[task, name] for task in ("pretrain", "sft")]
        rates = [f"{row['samples_per_second'][0]:.2f}" for row in pair]
        shares = [f"{100 * row['share_of_peak'][0]:.0f} %" for row in pair]
        shown = _NAMES_ZH.get(name, name) if language == "zh" else name
        rows.append([shown, *rates, *shares, f"{pair[1]['peak_memory'] / MIB:,.0f} MiB"])
    return markdown(rows)


def scaling(sources: Sources, _: Language) -> str:
    """What training costs as samples, text, image tokens and processes grow, from scaling.json."""
    found = _read(sources, "scaling")
    parts = []
    samples = [["samples", "reading and planning two epochs, s", "loading a batch, ms", "memory, MiB"]]
    for count, row in found["samples"].items():
        loading = f"{1000 * row['load_seconds_per_batch']:.1f}"
        samples.append([f"{int(count):,}", f"{row['plan_seconds']:.3f}", loading, f"{row['memory'] / MIB:,.0f}"])
    parts.append(markdown(samples))
    for key, title in (("text", "tokens of text"), ("image_tokens", "image tokens")):
        rows = [[title, "a sample, s", "peak memory, MiB"]]
        for count, row in found[key].items():
            rows.append([f"{int(count):,}", f"{row['seconds_per_sample']:.3f}", f"{row['memory'] / MIB:,.0f}"])
        parts.append(markdown(rows))
    processes = [["processes", "samples/s", "peak memory of a process, MiB"]]
    for count, row in found["processes"].items():
        processes.append([count, f"{row['samples_per_second']:.1f}", f"{row['memory'] / MIB:,.0f}"])
    parts.append(markdown(processes))
    machine = found["machine"]
    parts.append(f"{machine['name']}, {machine['cores']} cores, torch {machine['torch']}.")
    return "\n\n".join(parts)


TABLES: Mapping[str, Callable[[Sources, Language], str]] = {
    "training": partial(training, "training"),
    "training-ratios": partial(ratios, "training"),
    "training-amx": partial(training, "training-amx"),
    "training-amx-ratios": partial(ratios, "training-amx"),
    "speed": speed,
    "scaling": scaling,
}
