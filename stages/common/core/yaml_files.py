"""YAML files that people write by hand, checked against a type."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from stages.common.core.errors import InputError

T = TypeVar("T")


class Strict(BaseModel):
    """An entry in such a file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # written in C where there is one: 6 times as fast
    """A repeated key is an error; plain YAML takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is listed twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_checked(path: Path, shape: type[T]) -> T:
    """A YAML file as an object of type ``shape``. Raises InputError that names the entry and the error in it."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    try:
        return TypeAdapter(shape).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from None
