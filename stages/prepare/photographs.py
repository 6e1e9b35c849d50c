"""The photographs of the evaluation, which become the split "fixed"."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.common.core.errors import InputError
from stages.common.data.shards import write_shard
from stages.prepare.picture import stored_picture
from stages.prepare.quarantine import BadRow
from stages.prepare.rows import Rules


def write_photographs(photographs: Sequence[Path], rules: Rules, folder: Path) -> None:
    """Write the shard, in the order of file names. Raises InputError for a photograph that cannot be used."""
    paths = sorted(photographs, key=lambda path: path.name)
    stems = [path.stem for path in paths]
    for path in paths:
        if stems.count(path.stem) > 1:
            raise InputError(f"{path}: two photographs are called {path.stem}; rename one")
    write_shard(folder / "fixed-00000.parquet", (_row(path, rules) for path in paths))


def _row(path: Path, rules: Rules) -> dict[str, Any]:
    try:
        data = stored_picture(path.read_bytes(), rules.max_pixels, rules.image_size, rules.resize)
    except OSError as error:
        raise InputError(f"photograph {path} cannot be read: {error.strerror}") from None
    except BadRow as bad:
        raise InputError(f"photograph {path} cannot be used: {bad.reason}; replace it or leave it out") from None
    return {"id": path.stem, "images": [{"bytes": data, "path": path.name}], "scene": "", "texts": []}
