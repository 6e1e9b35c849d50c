"""Writes the HTML template of `dvc plots` with the Vega libraries included.

DVC's own template loads Vega from the network: offline, its page stays blank. Usage:

    python -m stages.report.plots_template .dvc/plots/offline.html
    dvc config plots.html_template plots/offline.html    # relative to .dvc
"""

from __future__ import annotations

import sys
from pathlib import Path

from stages.common.core.errors import InputError
from stages.common.core.files import write_text
from stages.common.core.stage import run_stage

# DVC fills {plot_divs} and {refresh_tag}; without {scripts} it adds no links of its own.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>dvc plots</title>
<link rel="icon" href="data:,">
<style>
body { margin: 24px; background: #fff; color: #1b1d22; }
body { font: 14px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans CJK SC", sans-serif; }
body > div { margin-bottom: 32px; overflow-x: auto; }
body > div > div { vertical-align: top; }
img { max-width: 100%; image-rendering: pixelated; }
table { border-spacing: 15px; }
</style>
<script>
@BUNDLE@
</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def template() -> str:
    """DVC's page with the Vega libraries that are part of vl-convert."""
    import vl_convert  # imported here because it starts a JavaScript engine

    bundle = vl_convert.javascript_bundle()
    # "</script" inside a script would end it; in a JavaScript string "<\/script" is the same text.
    return _PAGE.replace("@BUNDLE@", bundle.replace("</script", "<\\/script"))


def main() -> None:
    if len(sys.argv) != 2:
        raise InputError("give the file to write: python -m stages.report.plots_template OUT")
    write_text(Path(sys.argv[1]), template())


if __name__ == "__main__":
    run_stage(main)
