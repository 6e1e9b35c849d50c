"""Stage report: one static page, one merged metrics file and the tables behind `dvc plots`.

in: params, reports/loss, reports/evaluation, data/sft/*/summary.json, data/prepared/fixed-00000.parquet
out: reports/index.html, reports/metrics.json, reports/loss.csv, reports/checkpoints.csv
"""

from __future__ import annotations

from stages.common.errors import run_stage
from stages.common.files import write_json, write_text
from stages.common.params import load_params
from stages.report.merge import (
    LOSS_COLUMNS,
    METRIC_COLUMNS,
    REPORTS,
    csv_text,
    load_run,
    loss_table,
    metric_table,
    metric_values,
)
from stages.report.page import render_page


def main() -> None:
    run = load_run(load_params())
    write_text(REPORTS / "index.html", render_page(run))
    write_json(REPORTS / "metrics.json", metric_values(run))
    write_text(REPORTS / "loss.csv", csv_text(LOSS_COLUMNS, loss_table(run)))
    write_text(REPORTS / "checkpoints.csv", csv_text(METRIC_COLUMNS, metric_table(run)))
    print(f"report on {len(run.checkpoints)} checkpoints and {len(run.pictures)} scenes: {REPORTS / 'index.html'}")


if __name__ == "__main__":
    run_stage(main)
