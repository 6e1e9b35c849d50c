"""What is recorded beside weights and metrics about how they were computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from stages.common.core.provenance import cpu_name, provenance, write_provenance


def test_keys_and_values(tmp_path: Path) -> None:
    value = provenance("bf16", True, 2)
    assert value["torch"] == torch.__version__ and value["transformers"] == transformers.__version__
    assert (value["precision"], value["compiled"], value["processes"]) == ("bf16", True, 2)
    assert list(value) == ["torch", "transformers", "processor", "precision", "compiled", "processes"]
    write_provenance(tmp_path, value)
    assert json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8")) == value


def test_the_gpu_is_the_processor_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance("fp32", False, 1)["processor"] == cpu_name()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    assert provenance("fp32", False, 1)["processor"] == "NVIDIA H100"
