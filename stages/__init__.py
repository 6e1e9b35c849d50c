"""The pipeline's stages. Each is run as `python -m stages.NAME`; dvc.yaml chains them."""

import os
import time

STARTED = time.monotonic()  # this is the first line of ours that a stage's process runs
# Read by libgomp when torch loads it: how often a thread that waits for the others looks before it goes to sleep. Its
# own 300,000 costs a factor of seven as soon as something else wants one of two cores; none at all, or
# OMP_WAIT_POLICY=PASSIVE, makes a training step on idle cores half as slow again; this many, neither.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
VISIBLE_GPUS = os.environ.get("CUDA_VISIBLE_DEVICES")  # None: all; what stages.common.training.launch shares out
# A process takes one GPU: the Trainer would spread each planned batch over all that it sees. Processes that share a
# stage have a number each, and choose by it.
if "RANK" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = (VISIBLE_GPUS if VISIBLE_GPUS is not None else "0").split(",")[0]
