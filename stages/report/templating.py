"""Jinja2 templates of the pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.report.cards import arms_chart, difference_chart
from stages.report.run.figures import format_change

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, context: dict[str, Any]) -> str:
    """A template of the folder ``templates`` with all values escaped, except for Markup."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(thousands=thousands, short=short_number, change=format_change)
    environment.globals.update(arms_chart=arms_chart, difference_chart=difference_chart)
    return environment.get_template(template).render(context)


def thousands(number: float) -> str:
    return f"{number:,.0f}"


def short_number(number: float) -> str:
    """3.41 M, 410 k, 87."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"
