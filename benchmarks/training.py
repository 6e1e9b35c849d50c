"""Training speed of a 26 M-parameter model, compared with two other implementations: ``python -m benchmarks.training``.

Every contender (see benchmarks/contenders.py) runs in a process of its own, and all take turns, so that changes of the
machine's speed affect all of them; the peak of matrix products is measured before each round. Writes a table, all
measurements (training.json) and a plot (training.png).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm import tqdm
from transformers import CLIPVisionModel

from benchmarks.charts import bars, save_png
from benchmarks.contenders import run
from benchmarks.material import IMAGE_TOKENS, VISION, Task, draw, load
from stages.common.core.memory import reuse_memory
from stages.common.core.processes import default_device
from stages.common.data.features import features_path
from stages.common.training.precision import use_bf16
from stages.encode import create_arrays, write_features

TASKS: tuple[Task, ...] = ("pretrain", "sft")
CONTENDERS = ("reference", "stock", "ours")
EPOCHS = (1, 2, 4, 11)  # epochs that share the cost of the feature cache; the default run has 1 + 5 x 2
SCENES = 244  # packs are 96 (pretraining) and 98 % (SFT) full with so many, about as in a full run
CUBE = 8192 if torch.cuda.is_available() else 2048  # side of the square matrices whose product measures the peak
OUT = Path(__file__).parent

Measurement = dict[str, float]


def fastest_product(dtype: torch.dtype) -> float:
    """Floating-point operations per second of a product of two square matrices, the best of ten runs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(CUBE, CUBE, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * CUBE**3 / best


def encode(folder: Path) -> float:
    """Writes the feature cache of an untrained CLIP as stage encode does; returns seconds per picture."""
    reuse_memory()
    torch.manual_seed(0)
    model = CLIPVisionModel(VISION).to(default_device()).eval()
    started = time.perf_counter()
    create_arrays({"train": (SCENES, IMAGE_TOKENS, VISION.hidden_size)}, folder)
    write_features(model, "train", 32, use_bf16("auto"), features_path("train", folder))
    return (time.perf_counter() - started) / SCENES


@contextmanager
def contender_processes(task: Task, folder: Path, threads: int) -> Iterator[dict[str, Connection]]:
    """The contenders, each in a process of its own, which ends with the block."""
    context = get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    processes, ends = [], {}
    try:
        for name in CONTENDERS:
            ends[name], theirs = context.Pipe()
            arguments = (name, task, folder, partial(load, task), theirs)
            processes.append(context.Process(target=run, args=arguments))
            processes[-1].start()
            theirs.close()
        targets = {name: end.recv() for name, end in ends.items()}
        assert len(set(targets.values())) == 1, targets
        yield ends
    finally:
        for process in processes:
            process.kill()
            process.join()


def request_measurement(end: Connection) -> Measurement:
    end.send("go")
    return end.recv()


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    draw(folder, SCENES)
    found: dict[str, Any] = {"encode": encode(folder), "rounds": []}
    with tqdm(total=len(TASKS) * (rounds + 1) * len(CONTENDERS), unit="run") as bar:
        for task in TASKS:
            with contender_processes(task, folder, torch.get_num_threads()) as ends:
                for number in range(rounds + 1):
                    peak = {"bf16": fastest_product(torch.bfloat16), "fp32": fastest_product(torch.float32)}
                    for name, end in ends.items():
                        bar.set_description(f"{task}: {name}" if number else f"{task}: {name} warms up")
                        measurement = request_measurement(end)
                        bar.update()
                        if number:
                            found["rounds"].append({"task": task, "contender": name, "peak": peak, **measurement})
    return found


def median_and_range(values: Sequence[float]) -> tuple[float, float, float]:
    return median(values), min(values), max(values)


def summary(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per task and contender: (median, minimum, maximum) of each figure; ratios are taken within a round."""
    rows = []
    peak = median(run["peak"]["bf16"] for run in found["rounds"])
    for task in TASKS:
        by_name = {
            name: [row for row in found["rounds"] if (row["task"], row["contender"]) == (task, name)]
            for name in CONTENDERS
        }
        for name, runs in by_name.items():
            seconds = [run["seconds"] / run["samples"] for run in runs]
            row = {
                "task": task,
                "contender": name,
                "samples_per_second": median_and_range([1 / each for each in seconds]),
                "target_tokens_per_second": median_and_range([run["target_tokens"] / run["seconds"] for run in runs]),
                "share_of_peak": median_and_range([run["operations"] / run["seconds"] / peak for run in runs]),
                "peak_memory": max(run["peak_memory"] for run in runs),
                "samples_measured": sum(run["samples"] for run in runs),
            }
            if name == "ours":
                for other in ("reference", "stock"):
                    theirs = [run["seconds"] / run["samples"] for run in by_name[other]]
                    for epochs in (*EPOCHS, None):
                        cost = found["encode"] / epochs if epochs else 0.0
                        ratios = [slow / (fast + cost) for slow, fast in zip(theirs, seconds, strict=True)]
                        row[f"times_{other}" + (f"_encoded_for_{epochs}" if epochs else "")] = median_and_range(ratios)
            rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]], found: dict[str, Any]) -> str:
    def cell(values: Sequence[float], digits: int = 2) -> str:
        return f"{values[0]:.{digits}f} ({values[1]:.{digits}f} to {values[2]:.{digits}f})"

    lines = [
        "| task | implementation | samples/s | target tokens/s | share of bf16 peak | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = cell([100 * value for value in row["share_of_peak"]], 0)
        rates = f"{cell(row['samples_per_second'])} | {cell(row['target_tokens_per_second'], 0)}"
        memory = f"{row['peak_memory'] / 2**20:,.0f} MiB"
        lines.append(f"| {row['task']} | {row['contender']} | {rates} | {share} % | {memory} |")
    lines += ["", "| task | ours against | training alone |" + "".join(f" encoding for {e} epochs |" for e in EPOCHS)]
    lines.append("|---|---|---|" + "---|" * len(EPOCHS))
    for row in (row for row in rows if row["contender"] == "ours"):
        for other in ("reference", "stock"):
            names = ["", *(f"_encoded_for_{epochs}" for epochs in EPOCHS)]
            ratios = " | ".join(f"{cell(row[f'times_{other}{name}'], 1)} x" for name in names)
            lines.append(f"| {row['task']} | {other} | {ratios} |")
    peaks = {dtype: median_and_range([run["peak"][dtype] for run in found["rounds"]]) for dtype in ("bf16", "fp32")}
    peak_text = ", ".join(f"{dtype} {cell([value / 1e9 for value in values], 0)}" for dtype, values in peaks.items())
    cost = f"{1000 * found['encode']:.0f} ms"
    return "\n".join([*lines, "", f"Matrix product of {CUBE}-cubes, GFLOP/s: {peak_text}. Encoding a picture: {cost}."])


def machine() -> dict[str, Any]:
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
        name = next(
            (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
        )
    return {"name": name, "cores": os.cpu_count(), "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measurement rounds per contender")
    rounds = parser.parse_args().rounds
    with TemporaryDirectory() as folder:
        found = measure(Path(folder), rounds)
    rows = summary(found)
    (OUT / "training.json").write_text(
        json.dumps({"machine": machine(), "summary": rows, **found}, indent=1) + "\n", encoding="utf-8"
    )
    panels = [
        (title, [(row["task"], row["contender"], *row[key]) for row in rows], scale)
        for title, key, scale in (
            ("samples per second", "samples_per_second", "log"),
            ("share of the bf16 matrix-product peak", "share_of_peak", "linear"),
        )
    ]
    save_png(bars(panels, CONTENDERS), OUT / "training.png")
    print(table(rows, found))


if __name__ == "__main__":
    main()
