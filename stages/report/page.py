"""The index page: from the figures and texts of a run to one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, NamedTuple

from markupsafe import Markup

from stages.common.world.vocabulary import ATTRIBUTION
from stages.report.charts.loss_chart import loss_chart
from stages.report.charts.palette import palette
from stages.report.comparison import comparisons
from stages.report.figure_table import figure_table
from stages.report.findings import findings
from stages.report.provenance import provenance_text
from stages.report.regime_section import FIGURES, regime_section, verdict_sentence
from stages.report.run.load_run import Run
from stages.report.run.records import DESCRIBING_TASKS, PhaseData
from stages.report.scene_views import scene_view
from stages.report.sections import sections
from stages.report.templating import TEMPLATES, render

_LOSS_SIZES = {"wide": (1180, 340), "medium": (700, 320), "narrow": (356, 280)}  # pixels: desktop, tablet, phone


def render_page(run: Run) -> str:
    return render("page.html.j2", context(run))


def context(run: Run) -> dict[str, Any]:
    """Values of the template, in the page's order."""
    names = list(run.checkpoints)
    evaluations = [checkpoint.evaluation for checkpoint in run.checkpoints.values()]
    drawn = run.params.data.source == "world"
    colours = palette(run.params, names)
    scenes = [scene_view(run, picture) for picture in run.pictures]
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "names": names,
        "colours": [colours[name] for name in names],
        "params": run.params,
        "drawn": drawn,
        "attribution": ATTRIBUTION if drawn else "",
        "evaluation": next((each for each in evaluations if each.split == "test"), evaluations[0]),
        "epochs": any(each.split != "test" for each in evaluations),
        "confidence": f"{100 * run.params.evaluate.confidence:g}",
        "script": Markup(script),
        "script_source": f"'sha256-{digest}'",
        "provenance": provenance_text(run),
        "comparisons": comparisons(run),
        "verdict": verdict_sentence(run),
        "regime": regime_section(run),
        "figure_names": FIGURES,
        "findings": findings(run),
        "scenes": scenes,
        "measured": any(scene.measured for scene in scenes),
        "shares": {task: text_shares(run, task) for task in DESCRIBING_TASKS},
        "sections": sections(run),
        "loss_charts": {kind: Markup(loss_chart(run, *size)) for kind, size in _LOSS_SIZES.items()},
        "runs": list(run.checkpoints.values()),
        "validated": any(checkpoint.validation_loss for checkpoint in run.checkpoints.values()),
        "table": figure_table(run),
        "data": data_rows(run),
    }


def text_shares(run: Run, task: str) -> list[float]:
    """Relative widths of the columns of texts, at least 0.3: columns of these widths are about equally tall."""
    lengths = [
        sum(len(checkpoint.answers[picture.id, task].answer) for picture in run.pictures)
        for checkpoint in run.checkpoints.values()
    ]
    longest = max(lengths) or 1
    return [round(max(length / longest, 0.3), 2) for length in lengths]


class DataRow(NamedTuple):
    """``share``: of the largest number of target tokens, in percent."""

    checkpoint: str
    after: str
    control_for: str | None
    data: PhaseData
    share: float


def data_rows(run: Run) -> list[DataRow]:
    phases = [checkpoint for checkpoint in run.checkpoints.values() if checkpoint.data is not None]
    controls = {control: curriculum for curriculum, control in run.params.sft.comparisons}
    largest = max((phase.data.target_tokens for phase in phases), default=1) or 1
    return [
        DataRow(
            phase.name,
            phase.after,
            controls.get(phase.phase),
            phase.data,
            100 * phase.data.target_tokens / largest,
        )
        for phase in phases
    ]
