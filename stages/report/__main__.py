"""Stage report: the page, a metrics file per checkpoint, the tables and pictures of `dvc plots`, and the page of times.

in: params, reports/loss, reports/evaluation, reports/time, data/sft/*/summary.json, data/prepared/fixed-00000.parquet
out: reports/index.html, metrics/*.json, reports/loss.csv, reports/checkpoints.csv, reports/scenes/*.svg;
reports/times.html, which is no output of DVC
"""

from __future__ import annotations

from pathlib import Path

from stages.common.config.params import load_params
from stages.common.core.files import atomic_directory, write_json, write_text
from stages.common.core.stage import run_stage
from stages.report.page import render_page
from stages.report.run.load_run import REPORTS, load_run
from stages.report.scene_plots import scene_plots
from stages.report.tables import LOSS_COLUMNS, METRIC_COLUMNS, csv_text, loss_table, metric_table, metric_values
from stages.report.timeline import load_times
from stages.report.times_page import render_times_page

METRICS = Path("metrics")  # not in reports/: a short path leaves more columns for `dvc metrics show`


def metrics_file(checkpoint: str) -> str:
    """sft-long.json; sft-long.1.json for the checkpoint kept after its first epoch."""
    return f"{checkpoint.replace('/epoch-', '.')}.json"


def main() -> None:
    params = load_params()
    run = load_run(params)
    write_text(REPORTS / "index.html", render_page(run))
    with atomic_directory(METRICS) as folder:
        for name, values in metric_values(run).items():
            write_json(folder / metrics_file(name), values)
    write_text(REPORTS / "loss.csv", csv_text(LOSS_COLUMNS, loss_table(run)))
    write_text(REPORTS / "checkpoints.csv", csv_text(METRIC_COLUMNS, metric_table(run)))
    with atomic_directory(REPORTS / "scenes") as folder:
        for name, drawing in scene_plots(run).items():
            write_text(folder / name, drawing)
    write_text(REPORTS / "times.html", render_times_page(load_times(params)))
    print(f"report on {len(run.checkpoints)} checkpoints and {len(run.pictures)} scenes: {REPORTS / 'index.html'}")
    print(f"times of the stages: {REPORTS / 'times.html'}")


if __name__ == "__main__":
    run_stage(main)
