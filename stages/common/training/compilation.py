"""When torch.compile is used, and on which part of the model."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from stages.common.core.errors import InputError

# Multiplications in a run (parameters of the decoder's layers x tokens) above which compiling saves more time than it
# takes; see benchmarks/RESULTS.md.
_MIN_PRODUCTS = 1e12


def decoder_layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """The layers of a Llama, or of the Llama in a LLaVA."""
    inner = model.model
    return getattr(inner, "language_model", inner).layers


def should_compile(choice: str, model: PreTrainedModel, tokens: int) -> bool:
    """Whether to compile for a run over ``tokens``; ``choice``: always, never, or auto.

    Where torch.compile does not work, auto means no. Raises InputError where it does not work and ``choice`` is always.
    """
    weights = sum(parameter.numel() for parameter in decoder_layers(model).parameters())
    if choice == "never" or (choice == "auto" and weights * tokens < _MIN_PRODUCTS):
        return False
    error = _compiler_error()
    if error is not None and choice == "always":
        raise InputError(f"params.yaml: train.compile: torch.compile does not work here ({error}); set it to never")
    if error is not None:
        print(f"torch.compile does not work here, so layers are not compiled: {error}", flush=True)
    return error is None


def _compiler_error() -> str | None:
    """The first line of torch.compile's error, if it fails: a C++ compiler or Python's headers may be missing."""
    try:
        torch.compile(lambda number: number + 1, fullgraph=True)(torch.ones(2))
    except Exception as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return None


def compile_decoder(model: PreTrainedModel) -> None:
    """Compile every layer by itself: all have the same code, so it is compiled once."""
    for layer in decoder_layers(model):
        layer.compile(fullgraph=True)
