"""torch.compile is used in long runs, and only where it works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stages.common.training import compilation
from stages.common.training.compilation import should_compile

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from tests_model import model
from stages.common.training.compilation import should_compile
from stages.common.core.stage import run_stage

run_stage(lambda: print("compile:", should_compile(sys.argv[1], model(), 10**12)))
"""


def model() -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    )


@pytest.mark.parametrize(
    ("choice", "tokens", "expected"), [("auto", 10, False), ("auto", 10**12, True), ("always", 10, True)]
)
def test_long_runs_are_compiled(choice: str, tokens: int, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "_compiler_error", lambda: None)
    assert should_compile(choice, model(), tokens) == expected
    assert not should_compile("never", model(), tokens)


@pytest.mark.parametrize(
    ("choice", "code", "message"),
    [
        ("auto", 0, "compile: False"),
        ("always", 2, "error: params.yaml: train.compile: torch.compile does not work here"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles on a GPU")
def test_without_a_compiler(choice: str, code: int, message: str, tmp_path: Path) -> None:
    """Not every machine has one: a run that need not be compiled goes on."""
    (tmp_path / "tests_model.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "def model():\n"
        "    return LlamaForCausalLM(LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=16, "
        "num_hidden_layers=2, num_attention_heads=2))\n",
        encoding="utf-8",
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "CXX": str(tmp_path / "no-compiler")}
    env["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / "cache")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, choice], cwd=tmp_path, env=env, text=True, capture_output=True, timeout=120
    )
    assert done.returncode == code, done.stderr
    assert message in done.stdout + done.stderr
    assert "does not work here" in done.stdout + done.stderr and "Traceback" not in done.stderr
