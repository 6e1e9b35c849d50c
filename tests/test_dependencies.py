"""dvc.yaml tells the truth about code: a stage depends on every local module that it imports, and on no other."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
# Folders that are depended on as a whole.
ROOMS = {"stages/fetch", "stages/prepare", "stages/evaluate", "stages/report", "model"}

PACKAGES = {"stages/__init__.py", "stages/common/__init__.py"}  # nothing in them that a result depends on


def module_file(name: str) -> Path | None:
    base = Path(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__main__.py", base / "__init__.py"):
        if (ROOT / candidate).exists():
            return candidate
    return None


def imported_files(start: Path) -> set[str]:
    """Files, or rooms, that ``start`` imports directly or through others."""
    seen: set[Path] = set()
    waiting = [start]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            waiting += [found for name in names if (found := module_file(name)) is not None]
    names = {file.as_posix() for file in seen}
    return {next((room for room in ROOMS if name.startswith(f"{room}/")), name) for name in names} - PACKAGES


def stages() -> dict[str, dict]:
    raw = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: stage.get("do", stage) for name, stage in raw.items()}


@pytest.mark.parametrize("name", stages())
def test_code_dependencies_are_those_that_the_stage_imports(name: str) -> None:
    stage = stages()[name]
    words = shlex.split(stage["cmd"])
    entry = module_file(words[words.index("-m") + 1])
    code = {d for d in stage["deps"] if d.endswith(".py") or d in ROOMS}
    assert code == imported_files(entry)


@pytest.mark.parametrize("name", stages())
def test_every_stage_says_what_it_does(name: str) -> None:
    assert stages()[name]["desc"].endswith(".")


def test_imports_run_one_way() -> None:
    """stages -> stages.common -> model -> libraries."""
    for file in ROOT.glob("model/*.py"):
        assert not any(found.startswith("stages/") for found in imported_files(file.relative_to(ROOT)))
    for file in ROOT.glob("stages/common/*.py"):
        found = imported_files(file.relative_to(ROOT))
        assert all(f.startswith("stages/common/") or f == "model" for f in found), (file, found)


LIGHT = ("prepare", "fetch", "tokenizer", "curriculum", "report")


@pytest.mark.parametrize("stage", LIGHT)
def test_stages_that_compute_nothing_with_torch_do_not_wait_for_it(stage: str) -> None:
    """Importing it takes longer than some of these stages do."""
    entry = module_file(f"stages.{stage}")
    name = ".".join(entry.with_suffix("").parts)
    code = f"import sys, {name}; sys.exit('torch' in sys.modules or 'wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
