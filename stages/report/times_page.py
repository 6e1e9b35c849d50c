"""The page of times: how long each stage took. It is no output of DVC, because times differ between identical runs."""

from __future__ import annotations

from collections.abc import Mapping

from stages.report.run.records import StageTime
from stages.report.templating import render
from stages.report.timeline import timeline


def render_times_page(times: Mapping[str, StageTime]) -> str:
    """One self-contained HTML file; ``times``: {stage: its time}, in the order of the stages."""
    return render("times.html.j2", {"timeline": timeline(times)})
