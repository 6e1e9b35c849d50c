"""Cost of training with more data, longer sequences and more processes: ``python -m benchmarks.scaling``.

The model has 26 M parameters, as in benchmarks/training.py, and is not compiled; each figure is measured in a process
of its own. For more samples: the time before the first step (reading samples, their lengths, planning batches) and that
of loading batches. For longer texts and more image tokens: the time of an SFT step per sample. For more processes: SFT
samples per second with the same global batch, where processes share the cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.charts import lines, save_png
from benchmarks.material import PAD_ID, ROOT, VISION, network
from benchmarks.training import machine
from model.vlm.attention import use_packed_attention
from stages.common.config.params import load_params
from stages.common.core.memory import peak_memory, reuse_memory
from stages.common.core.processes import is_main_process
from stages.common.data.batches import plan_batches
from stages.common.data.chat import IGNORED
from stages.common.data.features import CachedFeatures
from stages.common.data.packing import PackCollate, SampleDataset, pack_length
from stages.common.data.samples import Samples
from stages.common.training.loop import train
from stages.common.training.precision import use_bf16

BUDGET = 8192  # tokens per step
PROMPT = 20  # tokens
IMAGE_ID = 3
SAMPLES = (1000, 4000, 16_000, 64_000)
TEXT = (32, 64, 128, 256, 512, 1024)  # tokens of an answer
IMAGE_TOKENS = (49, 100, 144, 196)
PROCESSES = (1, 2)
STEPS = 4  # steps per measurement, after one for warm-up (two with several processes)
OUT = Path(__file__).parent

Figures = dict[str, float]


def synthetic_samples(count: int, text: Callable[[np.random.Generator], int]) -> Samples:
    rng = np.random.default_rng(0)

    def sample(number: int) -> tuple[list[int], list[int], list[int]]:
        answer = rng.integers(10, 6000, text(rng)).tolist()
        prompt = [1, IMAGE_ID, *rng.integers(10, 6000, PROMPT - 2).tolist()]
        return [number], prompt + answer, [IGNORED] * PROMPT + answer

    return Samples.of(map(sample, range(count)))


def features(count: int, tokens: int, folder: Path) -> CachedFeatures:
    """Features in a memory-mapped file, as in the pipeline."""
    path = folder / "features.npy"
    shape = (count, tokens, VISION.hidden_size)
    array = np.lib.format.open_memmap(path, "w+", "float16", shape)
    array[:] = np.random.default_rng(0).normal(size=shape[1:])
    array.flush()
    return CachedFeatures(np.load(path, mmap_mode="r"))


def measure_loading(count: int) -> Figures:
    """Reading samples, planning two epochs, and loading a hundred of their batches; memory beyond that of imports."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "samples.parquet"
        few = 200  # pictures, used repeatedly: in the file each takes 300 kB
        run_in_process("write", str(count), str(few), folder)
        pictures = CachedFeatures(np.load(Path(folder) / "features.npy", mmap_mode="r"))
        before = peak_memory()
        started = time.perf_counter()
        dataset = SampleDataset(Samples.read(path), _Repeated(pictures, few), 196, IMAGE_ID)
        plan = plan_batches(dataset.lengths, BUDGET, None, 2, True, 1)
        planned = time.perf_counter()
        collate = PackCollate(PAD_ID, BUDGET)
        for batch in plan.batches[:100]:
            collate([dataset[number] for number in batch])
        loaded = min(100, len(plan))
        return {
            "plan_seconds": planned - started,
            "load_seconds_per_batch": (time.perf_counter() - planned) / loaded,
            "memory": peak_memory() - before,
        }


class _Repeated:
    key = CachedFeatures.key

    def __init__(self, pictures: CachedFeatures, count: int) -> None:
        self._pictures, self._count = pictures, count

    def __getitem__(self, numbers: Any) -> np.ndarray:
        return self._pictures[np.asarray(numbers) % self._count]


def measure_step(text: int, image_tokens: int) -> Figures:
    """Seconds per sample of an SFT step, and peak memory."""
    reuse_memory()
    model = network(IMAGE_ID, "sft")
    use_packed_attention(model)
    per_pack = max(1, BUDGET // (PROMPT - 1 + image_tokens + text))
    with TemporaryDirectory() as folder:
        pictures = features(per_pack, image_tokens, Path(folder))
        dataset = SampleDataset(synthetic_samples(per_pack, lambda _: text), pictures, image_tokens, IMAGE_ID)
        batch = PackCollate(PAD_ID, BUDGET)([dataset[number] for number in range(per_pack)])
    optimizer = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-6, fused=True)
    seconds = []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bf16("auto")):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return {"seconds_per_sample": float(np.median(seconds[1:])) / per_pack, "memory": peak_memory()}


def measure_processes(folder: Path) -> None:
    """One of several processes, started by torchrun; the first prints the figures."""
    params = load_params(ROOT / "params.yaml")
    os.chdir(folder)  # the loss curve is written there
    params = params.model_copy(
        update={
            "wandb": params.wandb.model_copy(update={"mode": "disabled"}),
            "train": params.train.model_copy(update={"save_steps": 10**6, "compile": "never"}),
        }
    )
    model = network(IMAGE_ID, "sft")
    use_packed_attention(model)
    count = 20 * (STEPS + 3)
    pictures = CachedFeatures(np.load(folder / "features.npy", mmap_mode="r"))
    dataset = SampleDataset(synthetic_samples(count, lambda _: 190), _Repeated(pictures, 20), 196, IMAGE_ID)
    plan = plan_batches(dataset.lengths, BUDGET, None, 1, True, 1)
    pack, times = PackCollate(PAD_ID, pack_length(BUDGET)), []

    def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        times.append(time.perf_counter())
        return pack(items)

    train("scaling", model, dataset, collate, plan, params.sft, params, [], save=lambda *_: None)
    if is_main_process():
        per_step = (times[-1] - times[2]) / (len(times) - 3)
        print(json.dumps({"samples_per_second": count / len(plan) / per_step, "memory": peak_memory()}))


def run_in_process(*arguments: str, launcher: tuple[str, ...] = (), **env: str) -> Figures:
    """The last line that this module prints when it runs in a process of its own."""
    command = [sys.executable, *launcher, "-m", "benchmarks.scaling", *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **env},
        check=True,
        text=True,
        capture_output=True,
    )
    return json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{")))


def run_under_torchrun(processes: int) -> Figures:
    with TemporaryDirectory() as folder:
        features(20, 196, Path(folder))
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
        threads = str(max(1, (os.cpu_count() or 1) // processes))
        return run_in_process("processes", folder, launcher=launcher, OMP_NUM_THREADS=threads, DVC_ROOT=folder)


def measure() -> dict[str, dict[int, Figures]]:
    jobs: list[tuple[str, int, Callable[[], Figures]]] = [
        *(("samples", count, partial(run_in_process, "samples", str(count))) for count in SAMPLES),
        *(("text", tokens, partial(run_in_process, "step", str(tokens), "196")) for tokens in TEXT),
        *(("image_tokens", tokens, partial(run_in_process, "step", "128", str(tokens))) for tokens in IMAGE_TOKENS),
        *(("processes", count, partial(run_under_torchrun, count)) for count in PROCESSES),
    ]
    found: dict[str, dict[int, Figures]] = {}
    for axis, value, job in tqdm(jobs, unit="run"):
        found.setdefault(axis, {})[value] = job()
    return found


def plot(found: dict[str, dict[int, Figures]]) -> dict[str, Any]:
    def points(axis: str, *keys: str, scale: float = 1.0) -> list[tuple[float, float, str]]:
        return [
            (value, figures[key] * scale, key.replace("_", " "))
            for value, figures in found[axis].items()
            for key in keys
        ]

    mebibyte = 2**-20
    return lines(
        [
            ("More samples", "samples", "seconds", points("samples", "plan_seconds", "load_seconds_per_batch")),
            ("More samples", "samples", "MiB", points("samples", "memory", scale=mebibyte)),
            ("Longer texts", "tokens of an answer", "seconds per sample", points("text", "seconds_per_sample")),
            ("Longer texts", "tokens of an answer", "MiB", points("text", "memory", scale=mebibyte)),
            ("More image tokens", "image tokens", "seconds per sample", points("image_tokens", "seconds_per_sample")),
            ("More processes", "processes", "samples per second", points("processes", "samples_per_second")),
        ]
    )


def table(found: dict[str, dict[int, Figures]]) -> str:
    rows = ["| axis | value | figures |", "|---|---|---|"]
    for axis, values in found.items():
        for value, figures in values.items():
            cells = [
                f"memory {number / 2**20:,.0f} MiB" if key == "memory" else f"{key} {number:.4g}"
                for key, number in figures.items()
            ]
            rows.append(f"| {axis.replace('_', ' ')} | {value:,} | {', '.join(cells).replace('_', ' ')} |")
    return "\n".join(rows)


def main() -> None:
    how, *values = sys.argv[1:] or [""]
    if how == "write":
        count, few, folder = int(values[0]), int(values[1]), Path(values[2])
        synthetic_samples(count, lambda rng: int(rng.integers(60, 300))).write(folder / "samples.parquet")
        features(few, 196, folder)
        print("{}")
    elif how == "samples":
        print(json.dumps(measure_loading(int(values[0]))))
    elif how == "step":
        print(json.dumps(measure_step(int(values[0]), int(values[1]))))
    elif how == "processes":
        measure_processes(Path(values[0]))
    else:
        found = measure()
        (OUT / "scaling.json").write_text(
            json.dumps({"machine": machine(), **found}, indent=1) + "\n", encoding="utf-8"
        )
        save_png(plot(found), OUT / "scaling.png")
        print(table(found))


if __name__ == "__main__":
    main()
