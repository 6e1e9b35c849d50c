"""dvc.yaml against the code: a stage depends on the local modules that it imports; and the order of imports."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
# A room in stages/common imports from those before it in this list, from model, and from libraries.
COMMON = ("core", "config", "world", "data", "tracking", "training")


def read_yaml(path: str) -> object:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def stages() -> dict[str, dict]:
    """The stages of dvc.yaml; one that is written once for several phases or models counts once."""
    return {name: stage.get("do", stage) for name, stage in read_yaml("dvc.yaml")["stages"].items()}


NEUTRAL = read_yaml("tests/neutral_modules.yaml")
EXCEPTIONS = [path for entry in NEUTRAL for path in entry.get("except", [])]
STAGES = stages()
MODULES = sorted(
    file.relative_to(ROOT).as_posix() for folder in ("stages", "model") for file in (ROOT / folder).rglob("*.py")
)


def is_inside(module: str, path: str) -> bool:
    return module == path or module.startswith(f"{path}/")


def is_neutral(module: str) -> bool:
    return module not in EXCEPTIONS and any(is_inside(module, entry["path"]) for entry in NEUTRAL)


def module_file(name: str) -> str | None:
    """The file of a module or package, relative to the project; None for a library or a name inside a module."""
    base = name.replace(".", "/")
    return next((file for file in (f"{base}.py", f"{base}/__init__.py") if (ROOT / file).exists()), None)


def entry_file(stage: dict) -> str:
    """The file that the command of a stage runs."""
    arguments = shlex.split(stage["cmd"])
    name = arguments[arguments.index("-m") + 1]
    base = name.replace(".", "/")
    return next(file for file in (f"{base}.py", f"{base}/__main__.py") if (ROOT / file).exists())


@cache
def parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


@cache
def imports(file: str) -> frozenset[str]:
    """The local modules whose names stand in the import statements of ``file``, wherever in it."""
    names: list[str] = []
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: an import with leading dots, which this test does not follow"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name if module_file(name) else node.module for name in inside]
    return frozenset(found for name in names if (found := module_file(name)))


def packages(file: str) -> set[str]:
    """The `__init__.py` that importing ``file`` runs first, but for those that hold nothing but a docstring."""
    found = (f"{parent.as_posix()}/__init__.py" for parent in Path(file).parents if parent != Path())
    return {init for init in found if (ROOT / init).exists() and has_code(init)}


def has_code(file: str) -> bool:
    return not all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in parsed(file).body)


def calls_methods_of(file: str, exception: str) -> bool:
    """Whether ``file`` uses a method whose name is that of one in ``exception``."""
    methods = {node.name for node in ast.walk(parsed(exception)) if isinstance(node, ast.FunctionDef)}
    return any(isinstance(node, ast.Attribute) and node.attr in methods for node in ast.walk(parsed(file)))


def needed_modules(entry: str) -> set[str]:
    """The modules that ``entry`` imports, directly or through others, and that can change an output.

    Imports of neutral modules are not followed: what is reached only through them counts where its methods are used.
    """
    needed: set[str] = set()
    remaining = {entry}
    while remaining:
        file = remaining.pop()
        if file not in needed and not is_neutral(file):
            needed.add(file)
            remaining |= imports(file) | packages(file)
            remaining |= {exception for exception in EXCEPTIONS if calls_methods_of(file, exception)}
    return {file for file in needed if has_code(file)}


def code_dependencies(stage: dict) -> list[str]:
    return [path for path in stage["deps"] if path.startswith(("stages/", "model/")) or path == "model"]


@pytest.mark.parametrize("name", STAGES)
def test_every_imported_module_is_covered_by_one_dependency_or_by_the_list(name: str) -> None:
    dependencies = code_dependencies(STAGES[name])
    covered = {
        module: [path for path in dependencies if is_inside(module, path)]
        for module in needed_modules(entry_file(STAGES[name]))
    }
    assert {module: by for module, by in covered.items() if len(by) != 1} == {}


@pytest.mark.parametrize("name", STAGES)
def test_stages_that_use_the_vocabulary_depend_on_its_file(name: str) -> None:
    uses_it = "stages/common/world/vocabulary.py" in needed_modules(entry_file(STAGES[name]))
    assert ("data/world/kinds.yaml" in STAGES[name]["deps"]) == uses_it


@pytest.mark.parametrize("name", STAGES)
def test_every_code_dependency_covers_a_module_that_is_imported(name: str) -> None:
    needed = needed_modules(entry_file(STAGES[name]))
    dependencies = code_dependencies(STAGES[name])
    assert [path for path in dependencies if not any(is_inside(module, path) for module in needed)] == []
    assert [path for path in dependencies if not (ROOT / path).exists()] == []


def test_the_list_of_neutral_modules_is_short_and_current() -> None:
    for entry in NEUTRAL:
        assert entry["reason"].endswith(".")
        for path in (entry["path"], *entry.get("except", [])):
            assert any(is_inside(module, path) for module in MODULES), path
            assert is_inside(path, entry["path"])
    overlapping = [module for module in MODULES if sum(is_inside(module, entry["path"]) for entry in NEUTRAL) > 1]
    assert overlapping == []


def test_neutral_modules_are_dependencies_of_no_stage() -> None:
    for name, stage in STAGES.items():
        covered = [m for m in MODULES if is_neutral(m) and any(is_inside(m, path) for path in code_dependencies(stage))]
        assert covered == [], name


@pytest.mark.parametrize("kind", ["answer", "score"])
def test_the_three_forms_of_an_evaluation_stage_differ_in_the_checkpoint_only(kind: str) -> None:
    first, *others = (
        {key: value for key, value in STAGES[f"{kind}{form}"].items() if key not in ("cmd", "outs")}
        for form in ("-pretrain", "", "-model")
    )
    for other in others:
        assert other | {"deps": other["deps"][1:]} == first | {"deps": first["deps"][1:]}


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_a_description(name: str) -> None:
    assert STAGES[name]["desc"].endswith(".")


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """The nodes of one circle of ``graph`` in order, the first one again at the end; [] where there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if circle := visit(target, [*path, node]):
                return circle
        done.add(node)
        return []

    return next((circle for node in sorted(graph) if (circle := visit(node, []))), [])


def test_a_circle_is_found() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert find_circle({module: set(imports(module)) for module in MODULES}) == []


def folder_of(module: str) -> str:
    """The folder of a module. A module that lies beside folders, not in one (stages/sft.py), counts by itself."""
    folder = Path(module).parent.as_posix()
    return module if folder in ("stages", "model") else folder


def test_no_folders_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        targets = {folder_of(target) for target in imports(module)} - {folder_of(module)}
        graph.setdefault(folder_of(module), set()).update(targets)
    assert find_circle(graph) == []


def allowed(module: str, target: str) -> bool:
    """Whether imports run one way: stages, then stages/common, then model; no stage imports another."""
    if module.startswith("model/"):
        return target.startswith("model/")
    if target.startswith("model/") or target == "stages/__init__.py":
        return True
    if not module.startswith("stages/common/"):
        return target.startswith("stages/common/") or stage_of(target) == stage_of(module)
    if not target.startswith("stages/common/"):
        return False
    return COMMON.index(target.split("/")[2]) <= COMMON.index(module.split("/")[2])


def stage_of(module: str) -> str:
    """tokenizer for stages/tokenizer.py, prepare for stages/prepare/drawing/shapes.py."""
    return module.split("/")[1].removesuffix(".py")


def test_imports_run_one_way() -> None:
    assert [(module, target) for module in MODULES for target in imports(module) if not allowed(module, target)] == []


LIGHT = ("prepare", "fetch", "tokenizer", "curriculum", "score-pretrain", "report")


@pytest.mark.parametrize("name", LIGHT)
def test_stages_that_compute_nothing_with_torch_do_not_import_it(name: str) -> None:
    """Importing it takes longer than some of these stages do."""
    module = entry_file(STAGES[name]).removesuffix(".py").replace("/", ".")
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
