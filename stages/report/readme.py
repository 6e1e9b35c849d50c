"""Fill the marked tables of the README files, docs/ and RESULTS.md: ``python -m stages.report.readme``.

A marked table is what stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. Its figures come from committed
files: metrics/*.json (the run of dvc.lock), benchmarks/results/*.json (recorded runs, see benchmarks/record.py) and
benchmarks/*.json. ``--check`` changes nothing and ends with code 2 where a table differs from the files.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from stages.common.core.errors import InputError
from stages.common.core.files import write_text
from stages.report import benchmark_tables, readme_tables
from stages.report.readme_tables import Sources
from stages.report.recorded_metrics import Language
from stages.report.recorded_runs import read_runs

TABLES = readme_tables.TABLES | benchmark_tables.TABLES
_MARKED = re.compile(r"(<!-- table: (?P<name>\S+) -->\n)(?P<body>.*?)(<!-- (?P<end>end|table: \S+) -->)", re.DOTALL)
_START = re.compile(r"<!-- table: \S+ -->")


def documents(root: Path) -> list[Path]:
    """Markdown files whose marked tables are filled."""
    named = [root / name for name in ("README.md", "README_zh.md", "benchmarks/RESULTS.md")]
    return [path for path in [*named, *sorted((root / "docs").glob("*.md"))] if path.exists()]


def load_sources(root: Path) -> Sources:
    listed = {}
    for path in sorted((root / "metrics").glob("*.json")):
        try:
            listed[path.name] = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise InputError(f"{path} is not JSON: {error}; run `dvc repro report`") from None
    return Sources(root, read_runs(root), listed)


def language(path: Path) -> Language:
    return "zh" if path.stem.endswith("_zh") else "en"


def replace_tables(text: str, path: Path, make: Callable[[str], str]) -> tuple[str, list[str]]:
    """``text`` with every marked table replaced by ``make(name)``, and the names of those that changed.

    Raises InputError for an unknown name or a table without an end.
    """
    changed: list[str] = []
    filled = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal filled
        name = match["name"]
        if match["end"] != "end":
            raise InputError(f"{path}: table '{name}' has no end: write <!-- end --> below it")
        if name not in TABLES:
            raise InputError(f"{path}: there is no table '{name}': choose one of {', '.join(sorted(TABLES))}")
        filled += 1
        body = f"\n{make(name)}\n\n"
        if body != match["body"]:
            changed.append(name)
        return f"{match[1]}{body}{match[4]}"

    replaced = _MARKED.sub(replace, text)
    if filled != len(_START.findall(text)):
        raise InputError(f"{path}: the last table has no end: write <!-- end --> below it")
    return replaced, changed


def fill(root: Path, check: bool = False) -> list[str]:
    """Fill the tables of all documents under ``root``; returns "FILE: NAME" of those that changed.

    Raises InputError where ``check`` is set and a table differs from the files that it is made from.
    """
    sources = load_sources(root)
    changes = []
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        spoken = language(path)
        shown = path.relative_to(root)
        replaced, names = replace_tables(text, shown, lambda name, spoken=spoken: TABLES[name](sources, spoken))
        changes += [f"{shown}: {name}" for name in names]
        if names and not check:
            write_text(path, replaced)
    if changes and check:
        raise InputError(
            f"tables that differ from the files they are made from: {', '.join(changes)}; "
            "run `python -m stages.report.readme` and commit the result"
        )
    return changes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 2 where a table differs")
    try:
        changes = fill(Path(), parser.parse_args().check)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print("\n".join(f"filled {change}" for change in changes) or "all tables are those of the files")


if __name__ == "__main__":
    main()
