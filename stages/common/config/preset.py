"""A size of run, written into params.yaml: what `dvc exp run $(cat presets/smoke.args)` does for one experiment,
for those who type `dvc repro`.

    python -m stages.common.config.preset presets/smoke.args

A preset holds words of a command line, `-S key=value` again and again. Comments and layout of params.yaml stay.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from stages.common.config.params import PARAMS_FILE
from stages.common.core.errors import InputError
from stages.common.core.files import write_text
from stages.common.core.stage import run_stage


def read_preset(path: Path) -> dict[str, str]:
    """Dotted key -> value as YAML text. Raises InputError if the file is missing or holds anything else."""
    try:
        words = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.args"))) or "none"
        raise InputError(f"{path} is missing; presets there: {others}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from None
    values: dict[str, str] = {}
    for option, setting in zip(words[::2], [*words[1::2], ""], strict=False):
        key, _, value = setting.partition("=")
        if option != "-S" or not key or key[0] in "+~" or not value:
            raise InputError(f"{path}: expected -S key=value, found '{option} {setting}'")
        values[key] = value
    return values


def apply_preset(text: str, values: dict[str, str]) -> str:
    """The YAML ``text`` with the scalars at the dotted keys replaced; every other character stays as it is.

    Raises InputError that names a key if it is not in the text, or holds a list or a section.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    nodes = {key: _scalar(root, key) for key in values}
    for key, node in sorted(nodes.items(), key=lambda item: -item[1].start_mark.index):
        gap = " " if node.start_mark.index == node.end_mark.index else ""  # null, written as nothing after the colon
        text = text[: node.start_mark.index] + gap + values[key] + text[node.end_mark.index :]
    return text


def _scalar(node: yaml.Node | None, key: str) -> yaml.ScalarNode:
    for part in key.split("."):
        children = {name.value: child for name, child in node.value} if isinstance(node, yaml.MappingNode) else {}
        if part not in children:
            raise InputError(f"{key} is not a parameter of {PARAMS_FILE}; check its spelling")
        node = children[part]
    if not isinstance(node, yaml.ScalarNode):
        raise InputError(f"{key} is not a single value; a preset sets single values only")
    return node


def main() -> None:
    if len(sys.argv) != 2:
        raise InputError("give one preset: python -m stages.common.config.preset presets/smoke.args")
    preset = Path(sys.argv[1])
    values = read_preset(preset)
    try:
        text = PARAMS_FILE.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{PARAMS_FILE} is missing: run this from the project's root folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{PARAMS_FILE} cannot be read as UTF-8 text: {error}") from None
    try:
        write_text(PARAMS_FILE, apply_preset(text, values))
    except yaml.YAMLError as error:
        raise InputError(f"{PARAMS_FILE} is not valid YAML: {' '.join(str(error).split())}") from None
    print(f"{PARAMS_FILE} now has the {len(values)} values of {preset}")


if __name__ == "__main__":
    run_stage(main)
