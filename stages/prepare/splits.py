"""Which rows of a data file are for training, validation and test.

Splits go by a hash of the pictures' bytes, so that a picture is in one split only, in whatever rows it occurs.
"""

from __future__ import annotations

from collections.abc import Sequence

HELD_OUT = "held_out"  # of every split


def split_of(hash_fractions: Sequence[float], shares: tuple[float, float]) -> str:
    """train, validation or test; HELD_OUT for a row whose pictures are in several of them.

    ``hash_fractions``: a number in [0, 1) for each picture; ``shares``: of test and of validation.
    """
    test, validation = shares
    splits = {
        "test" if fraction < test else "validation" if fraction < test + validation else "train"
        for fraction in hash_fractions
    }
    return splits.pop() if len(splits) == 1 else HELD_OUT


def pretrain_split_of(hash_fractions: Sequence[float], shares: tuple[float, float]) -> str:
    """pretrain; HELD_OUT for a row with a picture that is in validation or test."""
    return "pretrain" if not hash_fractions or split_of(hash_fractions, shares) == "train" else HELD_OUT
