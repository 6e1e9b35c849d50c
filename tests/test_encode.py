"""Stage encode: what it computes, that any number of processes write the same bytes, and that a disk that is too small
or a process that dies leaves no half-made features."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel

from stages import encode
from stages.common.core import disk
from stages.common.core.errors import InputError
from stages.common.data.shards import read_images, write_shard

ROOT = Path(__file__).parents[1]
SIDE, WIDTH = 16, 8
COUNTS = {"train": [1, 0, 2, 1] * 9, "validation": [1] * 3, "fixed": [1]}  # pictures of each row

# The stage with something that goes wrong in the second of its processes, or that it can be caught at.
STAGE = """
import os, sys, time
from stages import encode
from stages.common.core.stage import run_stage
from stages.common.training.launch import run_distributed

trouble, rank, encode_picture = sys.argv[1], os.environ.get("RANK", "0"), encode.pixel_values

def pixel_values(*arguments):
    if trouble == "dies" and rank == "1":
        os._exit(7)
    if trouble == "slow":
        print("encoding", flush=True)
        time.sleep(30)
    return encode_picture(*arguments)

encode.pixel_values = pixel_values
encode.use_bf16 = lambda precision: rank == "0" if trouble == "split" else precision == "bf16"
if __name__ == "__main__":
    encode.end_cleanly()
    run_stage(run_distributed(encode.main, "troubled_stage"))
"""


def picture(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Shards of three splits and a tiny encoder; rows have no, one or two pictures."""
    rng = np.random.default_rng(0)
    (tmp_path / "data/prepared").mkdir(parents=True)
    for split, counts in COUNTS.items():
        rows = [
            {"id": str(n), "images": [{"bytes": picture(rng), "path": str(i)} for i in range(c)], "scene": ""}
            for n, c in enumerate(counts)
        ]
        write_shard(tmp_path / f"data/prepared/{split}-00000.parquet", [row | {"texts": []} for row in rows])
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
    )
    CLIPVisionModel(config).save_pretrained(tmp_path / "data/vision")
    set_params(tmp_path)
    return tmp_path


def set_params(
    project: Path, processes: int = 1, cache: bool = True, precision: str = "fp32", mean_pictures: int = 7
) -> None:
    params = yaml.safe_load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"))
    params["encode"] = {"cache": cache, "batch_size": 4, "mean_pictures": mean_pictures}
    params["train"] |= {"processes": processes, "precision": precision}
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def start(project: Path, *words: str, before: Callable[[], None] | None = None, **more: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    (project / "troubled_stage.py").write_text(STAGE, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=project,
        env={**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=before,
    )


def run(project: Path, *words: str, before: Callable[[], None] | None = None, **more: str) -> tuple[int, str, str]:
    process = start(project, *words, before=before, **more)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def features(project: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project / "data/features").iterdir()}


def assert_nothing_left(project: Path) -> None:
    assert sorted(path.name for path in (project / "data").iterdir()) == ["prepared", "vision"]


def test_features_are_the_encoders_last_hidden_states(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the pictures' numbers; the last batch is a part of one."""
    code, out, err = run(project, "stages.encode")
    assert code == 0, err
    assert "encode: 40 pictures, 4 patches of 8 numbers in 16 bit: 1 MiB" in out
    assert "pictures/s" in err
    monkeypatch.chdir(project)
    model = CLIPVisionModel.from_pretrained("data/vision").eval()
    assert {path.stem for path in Path("data/features").iterdir()} == {*COUNTS}
    for split, counts in COUNTS.items():
        pixels = encode.pixel_values(list(read_images(split)), SIDE)
        with torch.no_grad():
            expected = model(pixel_values=pixels).last_hidden_state[:, 1:]
        found = np.load(f"data/features/{split}.npy", allow_pickle=False)
        assert found.shape == (sum(counts), 4, WIDTH) and found.dtype == np.float16
        assert np.abs(found - expected.numpy()).max() < 2e-3


@pytest.mark.parametrize("how", ["train.processes", "torchrun"])
def test_several_processes_write_the_same_bytes(project: Path, how: str) -> None:
    code, _, err = run(project, "stages.encode")
    assert code == 0, err
    alone = features(project)
    shutil.rmtree(project / "data/features")
    if how == "train.processes":
        set_params(project, processes=3)
        code, out, err = run(project, "stages.encode")
    else:
        code, out, err = run(
            project, "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "stages.encode"
        )
    assert code == 0, err
    assert features(project) == alone
    assert out.count("encode: 40 pictures") == 1  # one of them speaks


def test_processes_agree_on_a_number_format(project: Path) -> None:
    """Each finds out by a measurement, which another program on the machine may disturb."""
    set_params(project, precision="bf16")
    code, _, err = run(project, "stages.encode")
    assert code == 0, err
    alone = features(project)
    set_params(project, processes=2)
    code, _, err = run(project, "troubled_stage", "split")
    assert code == 0, err
    assert features(project) == alone


def test_a_process_that_dies_leaves_nothing(project: Path) -> None:
    set_params(project, processes=2)
    code, _, _ = run(project, "troubled_stage", "dies")
    assert code == 7
    assert_nothing_left(project)


def test_ended_half_way_it_leaves_nothing_and_starts_over(project: Path) -> None:
    process = start(project, "troubled_stage", "slow")
    while "encoding" not in (line := process.stdout.readline()):
        assert line, "it ended before it could be stopped"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert_nothing_left(project)
    (project / "data/.features.partial").mkdir()  # what it would leave if it were killed
    code, _, err = run(project, "stages.encode")
    assert code == 0, err
    names = ["features", "mean_features.npy", "prepared", "vision"]
    assert sorted(path.name for path in (project / "data").iterdir()) == names


@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_does_not_take_them_is_one_sentence(project: Path, processes: int) -> None:
    """No file may grow beyond 1,000 bytes here."""
    set_params(project, processes=processes)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))  # noqa: E731
    code, _, err = run(project, "stages.encode", before=limit)
    assert code == 2, err
    assert err.count("error: data/features cannot be written completely: ") == 1
    assert "set encode.cache to false" in err and "Traceback" not in err
    assert_nothing_left(project)


def test_blocks_are_taken_before_pictures_are_encoded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file full of holes would end in a bus error once the disk is full."""

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(project)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match=r"No space left on device: set encode.cache to false"):
        encode.main()
    assert_nothing_left(project)


NEEDED = 40 * 4 * WIDTH * 2


@pytest.mark.parametrize(
    ("by_dvc", "config", "reflinks", "copies"),
    [
        (False, "", False, 1),  # nobody puts anything into a cache
        (True, "", False, 2),
        (True, "", True, 1),
        (True, "[cache]\n    type = hardlink,copy\n", False, 1),
        (True, '[cache]\n    type = "symlink"\n', False, 2),  # it is copied before the link is made
        (True, "[cache]\n    dir = /proc/no\n", False, 1),  # on another disk
    ],
)
def test_room_is_what_features_and_dvcs_copy_of_them_need(
    project: Path, monkeypatch: pytest.MonkeyPatch, by_dvc: bool, config: str, reflinks: bool, copies: int
) -> None:
    def clone(source: str, target: str) -> None:
        if not reflinks:
            raise OSError(errno.ENOTSUP, "not supported")

    (project / ".dvc").mkdir()
    (project / ".dvc/config").write_text(config, encoding="utf-8")
    monkeypatch.chdir(project)
    monkeypatch.setattr(disk, "reflink", clone)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    if by_dvc:
        monkeypatch.setenv("DVC_ROOT", str(project))
    room = copies * NEEDED + 2**28

    def usage(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=free, used=0, free=free))

    usage(room - 1)
    with pytest.raises(InputError) as caught:
        encode.main()
    sentence = str(caught.value)
    assert (
        sentence.startswith("data/features needs 1 MiB") and "the disk has 257 MiB free: set encode.cache" in sentence
    )
    assert ("as much again for the copy in DVC's cache" in sentence) == (copies == 2)
    assert sorted(path.name for path in (project / "data").iterdir()) == ["prepared", "vision"]
    usage(room)
    encode.main()
    assert len(features(project)) == 3


@pytest.mark.parametrize("mean_pictures", [7, 1000])
def test_the_mean_is_that_of_the_first_train_pictures(project: Path, mean_pictures: int) -> None:
    set_params(project, mean_pictures=mean_pictures)
    code, _, err = run(project, "stages.encode")
    assert code == 0, err
    train = np.load(project / "data/features/train.npy", allow_pickle=False)
    mean = np.load(project / "data/mean_features.npy", allow_pickle=False)
    assert mean.dtype == np.float32
    assert mean == pytest.approx(train[:mean_pictures].astype(np.float64).mean(0), abs=1e-6)
    assert abs(mean - train.astype(np.float64).mean(0)).max() < 1e-6 or mean_pictures < len(train)


def test_without_a_cache_the_mean_alone_is_written(project: Path) -> None:
    code, _, err = run(project, "stages.encode")
    assert code == 0, err
    expected = np.load(project / "data/mean_features.npy", allow_pickle=False)
    set_params(project, processes=2, cache=False)
    code, _, err = run(project, "stages.encode")
    assert code == 0, err
    assert sorted(path.name for path in (project / "data/features").iterdir()) == ["README.md"]
    assert np.load(project / "data/mean_features.npy", allow_pickle=False) == pytest.approx(expected, abs=1e-5)


def test_a_mean_of_no_pictures_is_refused(project: Path) -> None:
    set_params(project, mean_pictures=0)
    code, _, err = run(project, "stages.encode")
    assert code == 2 and "encode.mean_pictures" in err
