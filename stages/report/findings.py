"""The findings of a run, apart from the comparison of curriculum and control.

Every sentence is generated from the figures. A difference is called one only where its interval excludes zero, and
each sentence is about this run: one run cannot answer the research question.
"""

from __future__ import annotations

from stages.report.epoch_jumps import epoch_jumps
from stages.report.hallucination_patterns import hallucination_patterns
from stages.report.picture_use import picture_use
from stages.report.run.load_run import Run
from stages.report.statements import Finding


def findings(run: Run) -> list[Finding]:
    """In the page's order, without those for which nothing was measured."""
    found = (picture_use(run), epoch_jumps(run), hallucination_patterns(run))
    return [finding for finding in found if finding is not None]
