"""Whether torch.compile should_compile for itself in a run, and what of the model it compiles."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from stages.common.core.errors import InputError

# Products with weights in a run (parameters of the decoder's layers x tokens) above which compiling gains time; see
# benchmarks/RESULTS.md.
_WORTH_IT = 1e12


def decoder_layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """Of a LLaVA or a Llama."""
    inner = model.model
    return getattr(inner, "language_model", inner).layers


def should_compile(choice: str, model: PreTrainedModel, tokens: int) -> bool:
    """Whether to compile for a run over ``tokens``; ``choice``: always, never, or auto.

    Where there is no compiler, auto does without, and always raises InputError.
    """
    weights = sum(parameter.numel() for parameter in decoder_layers(model).parameters())
    if choice == "never" or (choice == "auto" and weights * tokens < _WORTH_IT):
        return False
    trouble = _compiler_error()
    if trouble is not None and choice == "always":
        raise InputError(f"params.yaml: train.compile: torch.compile does not work here ({trouble}); set it to never")
    if trouble is not None:
        print(f"torch.compile does not work here, so layers run as they are: {trouble}", flush=True)
    return trouble is None


def _compiler_error() -> str | None:
    """What keeps torch.compile from working: a compiler, or Python's headers, may be missing."""
    try:
        torch.compile(lambda number: number + 1, fullgraph=True)(torch.ones(2))
    except Exception as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return None


def compile_decoder(model: PreTrainedModel) -> None:
    """Every layer by itself: they are alike, so that the compiler works once."""
    for layer in decoder_layers(model):
        layer.compile(fullgraph=True)
