"""A project whose stage fetch runs in its own process, and the repositories of a fake Hub."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.fake_hub import Repo

ROOT = Path(__file__).resolve().parents[2]
DATA: Repo = ("dataset", "someone/minimind-v_dataset")
CLIP: Repo = ("model", "someone/clip")
MINIMIND: Repo = ("model", "someone/mind")
BIG = bytes(range(256)) * 12_000  # 3 MB
PHOTOS = {f"eval_images/{name}": name.encode() for name in ("太空 宇航员-Astronaut.jpg", "熊猫-Panda.jpg")}
UNREACHABLE = "http://127.0.0.1:9"  # no server listens on this port
SHORT_PAUSES = "import stages.fetch.download as d; d.PAUSES = (0.01, 0.01); "
RUN = "from stages.common.core.stage import run_stage; from stages.fetch.__main__ import main; run_stage(main)"


def files() -> dict[Repo, dict[str, bytes]]:
    return {
        DATA: {
            "pretrain_data.jsonl": b'{"image": "1.jpg"}\n' * 100,
            "pretrain_images.zip": b"PK" + BIG[:5000],
            "sft_data.jsonl": b"{}\n",
            "sft_images.zip": b"PK" + BIG[:6000],
            "README.md": b"# data\n",
            ".gitattributes": b"*.zip filter=lfs\n",
            **PHOTOS,
            "eval_images/.DS_Store": b"",
            "eval_images/small/熊猫.jpg": b"one folder further down",
        },
        CLIP: {"config.json": b"{}", "preprocessor_config.json": b"{ }", "pytorch_model.bin": BIG[:9000]},
        MINIMIND: {"llm_512.pth": BIG, "tokenizer.json": b"{}" * 2000, "tokenizer_config.json": b"{}"},
    }


def source(repo: Repo | str, *names: str, revision: str = "main") -> dict[str, Any]:
    kind, repo = repo if isinstance(repo, tuple) else ("dataset", repo)
    return {"repo": repo, "kind": kind, "revision": revision, "files": list(names)}


EVERYTHING = {
    "vision": source(CLIP, "config.json", "preprocessor_config.json", "model.safetensors|pytorch_model.bin"),
    "tokenizer": source(MINIMIND, "tokenizer.json", "tokenizer_config.json"),
    "language": source(MINIMIND, "llm_512.pth|lm_512.pth"),
    "pretrain_data": source(DATA, "pretrain_data.parquet|pretrain_data.jsonl"),
    "pretrain_images": source(DATA, "pretrain_images.zip"),
    "sft_data": source(DATA, "sft_data.jsonl"),
    "sft_images": source(DATA),
    "photographs": source(DATA, "eval_images/*.jpg"),
    "models": {"published": source(MINIMIND, "llm_512.pth")},
}


class Project:
    """A folder in which the stage runs. Its parameters require no fetched files until a ``need`` method is called."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, env
        self.params = yaml.safe_load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"))
        self.params["fetch"] = copy.deepcopy(EVERYTHING) | {"models": {}}

    def need_everything(self) -> None:
        self.params["data"]["source"] = "minimind"
        for stage in ("vision", "tokenizer", "language"):
            self.params[stage]["source"] = "fetch"
        self.params["fetch"] = copy.deepcopy(EVERYTHING)

    def need(self, **sources: dict[str, Any]) -> None:
        """Require ``sources`` only, as external checkpoints."""
        self.params["fetch"]["models"] = sources

    def start(self, program: str | None = None, **env: str) -> subprocess.Popen[str]:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params, allow_unicode=True), encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_"))}
        command = [sys.executable, *(["-m", "stages.fetch"] if program is None else ["-c", program])]
        environment = kept | {"PYTHONPATH": str(ROOT)} | self.env | env
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, **pipes)

    def run(self, program: str | None = None, **env: str) -> str:
        """Run the stage, which must succeed; returns its output."""
        process = self.start(program, **env)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return out

    def error(self, program: str | None = None, **env: str) -> str:
        """Run the stage, which must exit with code 2; returns its one-line error."""
        process = self.start(program, **env)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 2, errors
        assert "Traceback" not in errors
        return next(line for line in errors.splitlines() if line.startswith("error: "))

    def manifest(self, stage: str) -> dict[str, Any]:
        return json.loads((self.folder / f"data/fetched/{stage}.json").read_text(encoding="utf-8"))

    def manifests(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "data/fetched").iterdir()}

    def in_cache(self, repo: Repo, name: str) -> bytes:
        cache = Path(self.env["HF_HOME"]) / "hub" / f"{repo[0]}s--{repo[1].replace('/', '--')}"
        (found,) = cache.glob(f"snapshots/*/{name}")
        return found.read_bytes()

    def partial(self) -> Path | None:
        return next(Path(self.env["HF_HOME"]).glob("hub/*/blobs/*.fetch.incomplete"), None)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def described(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "size": len(data), "sha256": sha256(data)}
