"""The pipeline's stages. Each is run as `python -m stages.NAME`; dvc.yaml chains them."""

import os
import time

STARTED = time.monotonic()  # this is the first line of ours that a stage's process runs
# Read by libgomp when torch loads it: how often an idle thread polls before it sleeps. Measured by hand on two cores:
# the default, 300,000, makes a step seven times as slow when another process uses one of them; 0, or
# OMP_WAIT_POLICY=PASSIVE, makes it 1.5 times as slow on idle cores; this value does neither.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
VISIBLE_GPUS = os.environ.get("CUDA_VISIBLE_DEVICES")  # None: all; what stages.common.training.launch shares out
# A process takes one GPU: the Trainer would split each planned batch across all GPUs that it sees. Processes that
# share a stage have a number each, and choose by it.
if "RANK" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = (VISIBLE_GPUS if VISIBLE_GPUS is not None else "0").split(",")[0]
