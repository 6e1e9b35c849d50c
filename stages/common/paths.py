"""Where each stage leaves its outputs; the same paths stand in dvc.yaml."""

from pathlib import Path

FETCHED = Path("data/fetched")
SHARDS = Path("data/prepared")
TOKENIZER = Path("data/tokenizer")
VISION = Path("data/vision")
LANGUAGE = Path("data/language")
FEATURES = Path("data/features")
PHASES = Path("data/sft")
CHECKPOINTS = Path("checkpoints")
LOSS_LOGS = Path("reports/loss")
EVALUATIONS = Path("reports/evaluation")
