"""Whether torch.compile pays for itself in a run, and what of the model it compiles."""

from __future__ import annotations

import shutil

import torch
from transformers import PreTrainedModel

# Multiplications with weights (parameters of the decoder's layers x tokens) in a run, above which compiling gains time;
# see benchmarks/RESULTS.md.
_WORTH_IT = 1e13


def decoder_layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """Of a LLaVA or a Llama."""
    inner = model.model
    return getattr(inner, "language_model", inner).layers


def pays(choice: str, model: PreTrainedModel, tokens: int) -> bool:
    """Whether to compile for a run over ``tokens``; ``choice``: always, never, or auto."""
    if choice != "auto":
        return choice == "always"
    weights = sum(parameter.numel() for parameter in decoder_layers(model).parameters())
    return weights * tokens > _WORTH_IT and (torch.cuda.is_available() or shutil.which("c++") is not None)


def compile_decoder(model: PreTrainedModel) -> None:
    """Every layer by itself: they are alike, so that the compiler works once."""
    for layer in decoder_layers(model):
        layer.compile(fullgraph=True)
