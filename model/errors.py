"""Errors that a user can cause."""

from __future__ import annotations


class ConversionError(ValueError):
    """An input cannot be converted: the message is one sentence that names the input and the reason."""


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
