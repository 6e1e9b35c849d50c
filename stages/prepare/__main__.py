"""Stage prepare: raw sources become validated Parquet shards.

in: data/eval/scenes.yaml; params seed, data. out: data/prepared/{train,validation,test,fixed}-*.parquet
"""

from __future__ import annotations

from stages.common.errors import run_stage
from stages.common.files import whole_folder
from stages.common.params import load_params
from stages.common.paths import SHARDS
from stages.prepare.world import write_world


def main() -> None:
    params = load_params()
    with whole_folder(SHARDS) as folder:
        counts = write_world(params, folder)
    print("prepared " + ", ".join(f"{count} {split}" for split, count in counts.items()) + " scenes")


if __name__ == "__main__":
    run_stage(main)
