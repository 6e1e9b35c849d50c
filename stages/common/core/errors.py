"""Errors that a user can cause."""

from __future__ import annotations


class InputError(Exception):
    """Bad input: the message is one sentence that says which file, what is wrong and what to do."""
