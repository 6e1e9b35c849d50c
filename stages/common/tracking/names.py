"""Names of W&B runs, and of the group of runs that belong together."""

from __future__ import annotations

import os
import subprocess

from stages.common.config.loop import LoopParams
from stages.common.core.paths import PROJECT


def training_name(name: str, loop: LoopParams) -> str:
    """The name of a training run, in MiniMind-V's own form."""
    stage, *phase = name.split("-", 1)
    parts = ["MiniMind-V", "SFT" if stage == "sft" else stage.capitalize(), *phase, f"Epoch-{loop.epochs}"]
    if (tokens := getattr(loop, "batch_tokens", None)) is not None:
        parts.append(f"BatchTokens-{tokens}")
    else:
        parts.append(f"BatchSize-{loop.batch_size}")
    return "-".join([*parts, f"LearningRate-{loop.learning_rate}"])


def evaluation_name(checkpoint: str) -> str:
    """The name of the run that shows the evaluation of ``checkpoint``."""
    return f"MiniMind-V-Evaluate-{checkpoint.replace('/', '-')}"


def experiment() -> str:
    """The group of the runs of one pipeline run: DVC's name of the experiment; without one, the git branch and commit;
    without git, the name of the project's folder."""
    if name := os.environ.get("DVC_EXP_NAME"):
        return name
    parts = [_git("branch", "--show-current"), _git("rev-parse", "--short", "HEAD")]
    return "-".join(filter(None, parts)) or PROJECT.resolve().name


def _git(*arguments: str) -> str:
    """What git prints; empty where it fails or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
