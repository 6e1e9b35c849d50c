"""Writes a preset's values into params.yaml, for `dvc repro`.

    python -m stages.common.config.preset presets/smoke.args

A preset is a file of options of `dvc exp run`, `-S key=value` for each parameter that it sets. To set them for one
experiment only, run `dvc exp run $(cat presets/smoke.args)`.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from stages.common.config.params import PARAMS_FILE
from stages.common.core.errors import InputError
from stages.common.core.files import write_text
from stages.common.core.stage import run_stage


def read_preset(path: Path) -> dict[str, str]:
    """Dotted key -> value, as YAML text. Raises InputError if the file is missing or holds anything but -S options."""
    try:
        options = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.args"))) or "none"
        raise InputError(f"{path} is missing; presets there: {others}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from None
    values: dict[str, str] = {}
    for option, setting in zip(options[::2], [*options[1::2], ""], strict=False):
        key, _, value = setting.partition("=")
        if option != "-S" or not key or key[0] in "+~" or not value:
            raise InputError(f"{path}: expected -S key=value, found '{option} {setting}'")
        values[key] = value
    return values


def apply_preset(text: str, values: dict[str, str]) -> str:
    """The YAML ``text`` with the values at the dotted keys replaced, as `dvc exp run -S` does: by ruamel.yaml, which
    keeps comments, quotes and order, and a comment's column where the new value leaves room for it. A value written as
    nothing becomes null.

    Raises InputError that names a key if it is not in the text, holds a section, or a list that the new value does not
    fit.
    """
    yaml = _round_trip()
    root = yaml.load(text)
    for key, value in values.items():
        *parents, name = key.split(".")
        section = root
        for part in parents:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or name not in section:
            raise InputError(f"{key} is not a parameter of {PARAMS_FILE}; check its spelling")
        try:
            new = yaml.load(value)
        except YAMLError:
            raise InputError(f"{key}={value} is not a value that YAML can hold") from None
        if _is_single(section[name]) and _is_single(new):
            section[name] = new
        elif _is_list(section[name]) and _is_list(new) and len(section[name]) == len(new):
            for index, item in enumerate(new):  # the comment after a list is kept with its last item
                section[name][index] = item
        else:
            raise InputError(
                f"{key}={value} does not fit: a preset can replace a single value by another, and a list by one with "
                "as many items"
            )
    stream = io.StringIO()
    yaml.dump(root, stream)
    return stream.getvalue()


def _is_single(value: object) -> bool:
    return not isinstance(value, (dict, list))


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_single, value))


class _Representer(RoundTripRepresenter):
    """Writes null as null, where ruamel.yaml writes nothing."""

    def represent_none(self, data: None) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _Representer.represent_none)


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 10**6  # break no line
    return yaml


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
    except YAMLError as error:
        raise InputError(f"{PARAMS_FILE} is not valid YAML: {' '.join(str(error).split())}") from None
    print(f"{PARAMS_FILE} now has the {len(values)} values of {preset}")


if __name__ == "__main__":
    run_stage(main)
