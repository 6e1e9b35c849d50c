"""A split's pictures as model inputs: cached patch features, or pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from stages.common.core.errors import InputError
from stages.common.core.paths import FEATURES, MEAN_FEATURES
from stages.common.data.pictures import pixel_values
from stages.common.data.shards import PictureReader


class Pictures(Protocol):
    """Model inputs of pictures by their numbers in a split; ``key`` is the name of the model's argument."""

    key: str

    def __getitem__(self, numbers: Sequence[int]) -> np.ndarray: ...


class CachedFeatures:
    """Patch features [pictures, P, D] in float16, memory-mapped, which stage encode computed."""

    key = "patch_features"

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __getitem__(self, numbers: Sequence[int]) -> np.ndarray:
        return self._array[np.asarray(numbers, np.int64)]


class DecodedPictures:
    """Pixels [pictures, 3, S, S] in float32, read and decoded at every access."""

    key = "pixel_values"

    def __init__(self, split: str, image_size: int) -> None:
        self._reader, self._image_size = PictureReader(split), image_size

    def __getitem__(self, numbers: Sequence[int]) -> np.ndarray:
        images = [self._reader[int(number)] for number in numbers]
        if not images:
            return np.zeros((0, 3, self._image_size, self._image_size), np.float32)
        return pixel_values(images, self._image_size).numpy()


class MeanPicture:
    """A blind picture: the same mean patch features [P, D], float32, for every number."""

    key = "patch_features"

    def __init__(self, mean: np.ndarray) -> None:
        self._mean = mean

    def __getitem__(self, numbers: Sequence[int]) -> np.ndarray:
        return np.broadcast_to(self._mean, (len(numbers), *self._mean.shape))


def features_path(split: str, root: Path = FEATURES) -> Path:
    return root / f"{split}.npy"


def load_pictures(split: str, cache: bool, image_size: int) -> Pictures:
    """The pictures of ``split``: with ``cache`` their features, else their pixels.

    Raises InputError if stage encode has not run yet.
    """
    if not cache:
        return DecodedPictures(split, image_size)
    path = features_path(split)
    if not path.exists():
        raise InputError(f"{path} is missing: run `dvc repro encode` first")
    return CachedFeatures(np.load(path, mmap_mode="r", allow_pickle=False))


def load_mean() -> MeanPicture:
    """The mean patch features of train pictures. Raises InputError if stage encode has not run yet."""
    if not MEAN_FEATURES.exists():
        raise InputError(f"{MEAN_FEATURES} is missing: run `dvc repro encode` first")
    return MeanPicture(np.load(MEAN_FEATURES, allow_pickle=False))
