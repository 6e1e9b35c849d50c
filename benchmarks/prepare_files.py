"""Speed and memory of stage prepare on data files: ``python -m benchmarks.prepare_files``.

Small JPEGs with many names, in a zip with a jsonl file or in a Parquet file, are written as shards. For comparison, the
limit: the same pictures only read and decoded, in as many processes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter

from stages.common.config.params import Params, load_params
from stages.prepare.archive import index_archive
from stages.prepare.files import RowSource, write_files
from stages.prepare.images import Images, load_image

DISTINCT = 2000
SIDE = 224
JOB = 500


def pictures() -> list[bytes]:
    """Blurred noise over gradients, about 8 kB each, like small photographs."""
    rng = np.random.default_rng(1)
    ramp = np.linspace(0, 160, SIDE)
    found = []
    for _ in range(DISTINCT):
        slopes = rng.random((2, 3))
        pixels = (ramp[:, None, None] * slopes[0] + ramp[None, :, None] * slopes[1]) / 2
        noise = rng.normal(0, 60, (SIDE, SIDE, 3))
        image = Image.fromarray(np.clip(pixels + noise + 50, 0, 255).astype(np.uint8))
        buffer = io.BytesIO()
        image.filter(ImageFilter.GaussianBlur(1.2)).save(buffer, format="JPEG", quality=75)
        found.append(buffer.getvalue())
    return found


def talk(number: int) -> list[dict[str, str]]:
    answer = f"图中第{number}样东西在左边。右边有一棵大树，树下停着一辆红色的自行车。" * 3
    return [{"role": "user", "content": "描述图像。\n<image>"}, {"role": "assistant", "content": answer}]


def name_of(number: int) -> str:
    return f"GCC_train_{number:09d}.jpg"


def make_jsonl(folder: Path, rows: int, data: list[bytes]) -> RowSource:
    source = RowSource(folder / "rows.jsonl", folder / "images.zip")
    with source.data.open("w", encoding="utf-8") as lines, zipfile.ZipFile(source.images, "w") as archive:
        for number in range(rows):
            row = {"conversations": talk(number), "image": name_of(number)}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            archive.writestr(f"images/{name_of(number)}", data[number % DISTINCT])
    return source


def make_parquet(folder: Path, rows: int, data: list[bytes], group: int) -> RowSource:
    source = RowSource(folder / "rows.parquet", None)
    schema = pa.schema([("conversations", pa.string()), ("image_bytes", pa.binary())])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, rows, 1000):
            numbers = range(start, min(start + 1000, rows))
            talks = [json.dumps(talk(number), ensure_ascii=False) for number in numbers]
            yield pa.record_batch([talks, [data[number % DISTINCT] for number in numbers]], schema=schema)

    with pq.ParquetWriter(source.data, schema, use_dictionary=["conversations"]) as writer:
        if group <= 1000:
            for batch in batches():
                writer.write_batch(batch, row_group_size=group)
        else:
            writer.write_table(pa.Table.from_batches(batches()), row_group_size=group)
    return source


class Peak:
    """Peak memory of this process and its children, of all together and of the largest one; sampled."""

    def __init__(self) -> None:
        self.parent = self.children = self.together = 0
        self._end = threading.Event()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._end.wait(0.1):
            parent, children = me.memory_info().rss, 0
            for child in me.children(recursive=True):
                try:
                    children += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.parent, self.children = max(self.parent, parent), max(self.children, children)
            self.together = max(self.together, parent + children)


def read_and_decode(images: Images, start: int, stop: int) -> None:
    for number in range(start, stop):
        Image.open(io.BytesIO(load_image(images, name_of(number)))).load()


def decode(data: list[bytes]) -> None:
    for picture in data:
        Image.open(io.BytesIO(picture)).load()


def parquet_batches(path: Path) -> Iterator[list[bytes]]:
    with pq.ParquetFile(path, buffer_size=1 << 20) as file:
        for batch in file.iter_batches(JOB, columns=["image_bytes"]):
            yield batch.column(0).to_pylist()


def limit(source: RowSource, rows: int, processes: int, folder: Path) -> float:
    """Seconds to read and decode the pictures; those in a zip are read by the process that decodes them."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        list(pool.map(decode, [[]] * processes))  # start all processes
        started = time.perf_counter()
        if source.images is None:
            waiting = [pool.submit(decode, [])]
            for data in parquet_batches(source.data):
                waiting.append(pool.submit(decode, data))
                if len(waiting) > 2 * processes:
                    waiting.pop(0).result()
            for future in waiting:
                future.result()
        else:
            images = Images(source.images, folder / "limit.sqlite")
            index_archive(source.images, images.index)
            starts = range(0, rows, JOB)
            list(pool.map(read_and_decode, [images] * len(starts), starts, [min(s + JOB, rows) for s in starts]))
        return time.perf_counter() - started


def make(kind: str, folder: Path, rows: int) -> RowSource:
    data = pictures()
    if kind == "zip":
        return make_jsonl(folder, rows, data)
    return make_parquet(folder, rows, data, 1000 if kind == "parquet" else rows)


def measure(kind: str, rows: int, params: Params, root: Path) -> None:
    with TemporaryDirectory(dir=root, prefix="prepare-files-") as temporary:
        folder = Path(temporary)
        with ProcessPoolExecutor(1, get_context("spawn")) as aside:  # its memory is not part of the measurement
            source = aside.submit(make, kind, folder, rows).result()
        out = folder / "out"
        out.mkdir()
        processes = params.machine.processes or os.cpu_count() or 1
        started = time.perf_counter()
        with Peak() as peak:
            counts = write_files(None, source, [], params, out, folder / "quarantine.jsonl")
        seconds = time.perf_counter() - started
        assert counts["sft"]["rows"] == rows and not counts["sft"]["quarantined"]
        shutil.rmtree(out)
        bound = limit(source, rows, processes, folder)
    mb = 1 << 20
    print(
        f"{kind:10} {rows:8} {seconds:8.1f} s {rows / seconds:7.0f} rows/s {peak.parent / mb:6.0f} + "
        f"{peak.children / mb:5.0f} = {peak.together / mb:5.0f} MiB {rows / bound:7.0f} rows/s {bound / seconds:6.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000, 600_000])
    parser.add_argument("--kinds", nargs="+", default=["zip", "parquet"], choices=["zip", "parquet", "one-group"])
    parser.add_argument("--resize", action="store_true", help="store squares of data.image_size")
    parser.add_argument("--folder", type=Path, default=None, help="where to put the data; default: the system's")
    arguments = parser.parse_args()
    params = load_params(Path("tests/params.yaml"))
    # Many names share few pictures, so rows are held out in groups: enough rows for both splits to get some.
    data = params.data.model_copy(update={"source": "minimind", "resize": arguments.resize})
    print(f"{os.cpu_count()} cores; resize {arguments.resize}; peak memory: parent + children = together; limit; ratio")
    for kind in arguments.kinds:
        for rows in arguments.rows:
            share = {"validation_scenes": rows // 50, "test_scenes": rows // 50}
            sized = params.model_copy(update={"data": data.model_copy(update=share)})
            # In a process of its own, so that memory of earlier runs does not count.
            alone = get_context("spawn").Process(target=measure, args=(kind, rows, sized, arguments.folder))
            alone.start()
            alone.join()


if __name__ == "__main__":
    main()
