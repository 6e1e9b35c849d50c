"""Where each stage writes its outputs; dvc.yaml has the same paths."""

import os
from pathlib import Path

# The project's own folder, also when DVC runs an experiment in a temporary copy of it: for files that are no outputs
# and must outlive the copy.
PROJECT = Path(os.environ.get("DVC_ROOT", "."))
RESUME_ROOT = PROJECT / ".resume"  # saved states of training, a folder for each run
LOCKS = "locks"  # folder in it: a lock file for each run
WANDB_RUNS = PROJECT / "wandb"

FETCHED = Path("data/fetched")
SHARDS = Path("data/prepared")
TOKENIZER = Path("data/tokenizer")
VISION = Path("data/vision")
LANGUAGE = Path("data/language")
FEATURES = Path("data/features")
MEAN_FEATURES = Path("data/mean_features.npy")
PHASES = Path("data/sft")
CHECKPOINTS = Path("checkpoints")
TIMES = Path("reports/time")
LOSS_LOGS = Path("reports/loss")
EVALUATIONS = Path("reports/evaluation")
