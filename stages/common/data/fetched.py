"""The paths of files that stage fetch found, from its manifests in data/fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stages.common.core.errors import InputError
from stages.common.core.paths import FETCHED

AGAIN = "run `dvc repro --force --single-item fetch`"  # forced, because DVC tracks the manifests only, not the files


def fetched_files(stage: str, role: str) -> list[Path]:
    """Paths of the files (or local folders) of ``role`` in the manifest of ``stage``, in its order; [] for none.

    Raises InputError if stage fetch has not run yet, or if a file is missing or has another size since then.
    """
    path = FETCHED / f"{stage}.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run `dvc repro fetch` first") from None
    except ValueError:
        raise InputError(f"{path} is not a manifest of stage fetch: {AGAIN}") from None
    entry = manifest.get(role, {"source": "none"})
    return [] if entry["source"] == "none" else [_existing(entry, file) for file in entry["files"]]


def fetched_file(stage: str, role: str) -> Path:
    """The only file of ``role``. Raises InputError if there is none or more than one."""
    files = fetched_files(stage, role)
    if len(files) != 1:
        raise InputError(f"params.yaml: {_param(stage, role)}.files: {len(files)} files; give one")
    return files[0]


def fetched_folder(stage: str, role: str) -> Path:
    """The folder of the files of ``role``. Raises InputError if there are none."""
    files = fetched_files(stage, role)
    if not files:
        raise InputError(f"params.yaml: {_param(stage, role)}.files: no file, and {stage}.source is fetch; name some")
    return files[0].parent


def _param(stage: str, role: str) -> str:
    return f"fetch.models.{role}" if stage == "models" else f"fetch.{role}"


def _existing(entry: dict[str, Any], file: dict[str, Any]) -> Path:
    place = "the Hub's cache" if entry["source"] == "hub" else entry["repo"]
    path = _cached(entry, file["name"]) if entry["source"] == "hub" else Path(entry["repo"]).expanduser() / file["name"]
    if path is None or not path.exists():
        raise InputError(f"{file['name']} of {entry['repo']} is no longer in {place}: {AGAIN}")
    if "count" not in file and path.stat().st_size != file["size"]:
        raise InputError(
            f"{file['name']} of {entry['repo']} has another size in {place} than when it was fetched: {AGAIN}"
        )
    return path


def _cached(entry: dict[str, Any], name: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    where = {"repo_type": entry["kind"], "revision": entry["commit"], "local_files_only": True}
    try:
        return Path(hf_hub_download(entry["repo"], name, **where))
    except LocalEntryNotFoundError:
        return None
