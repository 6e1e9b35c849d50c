"""Stage prepare: write validated Parquet shards, from the built-in world or from data files.

in: data/eval/scenes.yaml, or the files that data/fetched/prepare.json names; params seed, data.
out: data/prepared/{pretrain,train,validation,test,fixed}-*.parquet, reports/prepare/{counts.json, quarantine.jsonl}
"""

from __future__ import annotations

from pathlib import Path

from stages.common.config.params import Params, load_params
from stages.common.core.errors import InputError
from stages.common.core.files import atomic_directory, write_json, write_text
from stages.common.core.paths import SHARDS
from stages.common.core.stage import run_stage
from stages.common.data.fetched import fetched_file, fetched_files
from stages.common.data.shards import write_empty_shard
from stages.prepare.files import RowSource, write_files
from stages.prepare.world import write_world

QUARANTINE = Path("reports/prepare/quarantine.jsonl")
COUNTS = Path("reports/prepare/counts.json")


def row_source(role: str) -> RowSource | None:
    """The fetched files of ``role`` (sft or pretrain), or None. Raises InputError for more than one file of a kind."""
    if not fetched_files("prepare", f"{role}_data"):
        return None
    images = fetched_files("prepare", f"{role}_images")
    return RowSource(
        fetched_file("prepare", f"{role}_data"), fetched_file("prepare", f"{role}_images") if images else None
    )


def prepare_files(params: Params) -> dict:
    sft = row_source("sft")
    if sft is None:
        raise InputError(f"params.yaml: fetch.sft_data.files: no file, and data.source {params.data.source} needs one")
    photographs = fetched_files("prepare", "photographs")
    with atomic_directory(SHARDS) as folder:
        counts = write_files(row_source("pretrain"), sft, photographs, params, folder, QUARANTINE)
        if "pretrain" in counts and not counts["pretrain"]["kept"].get("pretrain"):
            raise InputError(f"{counts['pretrain']['file']} leaves no row to pretrain on; see {QUARANTINE}")
        if not photographs:  # later stages read this split
            write_empty_shard(folder / "fixed-00000.parquet")
    return counts


def summary_line(role: str, counts: dict) -> str:
    """How many rows of a file were kept, held out and quarantined."""
    kept = ", ".join(f"{count} {split}" for split, count in counts["kept"].items())
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts["quarantined"].items())
    return (
        f"prepared {counts['file']} ({role}): {counts['rows']} rows; {kept}; {counts['held_out']} held out; "
        f"quarantined: {f'{reasons}; see {QUARANTINE}' if reasons else 'none'}"
    )


def main() -> None:
    params = load_params()
    if params.data.source == "world":
        with atomic_directory(SHARDS) as folder:
            kept = write_world(params, folder)
        counts = {"world": {"kept": kept}}
        write_text(QUARANTINE, "")
        print("prepared " + ", ".join(f"{count} {split}" for split, count in kept.items()) + " scenes")
    else:
        counts = prepare_files(params)
        for role in ("pretrain", "sft"):
            if role in counts:
                print(summary_line(role, counts[role]))
    write_json(COUNTS, counts)


if __name__ == "__main__":
    run_stage(main)
