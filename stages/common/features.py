"""Patch features of pictures, computed once by the frozen vision encoder: one memory-mapped array per split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.common.errors import InputError
from stages.common.paths import FEATURES


def features_path(split: str, root: Path = FEATURES) -> Path:
    return root / f"{split}.npy"


def load_features(split: str, root: Path = FEATURES) -> np.ndarray:
    """[rows, P, D] float16, memory-mapped, in the order of the split's rows. No pickled objects are read."""
    path = features_path(split, root)
    if not path.exists():
        raise InputError(f"{path} is missing: run `dvc repro encode` first")
    return np.load(path, mmap_mode="r", allow_pickle=False)
