"""Checks params.yaml: ``python -m stages.common.config``."""

from __future__ import annotations

from stages.common.config.params import load_params
from stages.common.core.stage import run_stage

if __name__ == "__main__":
    run_stage(load_params)
