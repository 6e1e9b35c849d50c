"""The pipeline's stages. Each is run as `python -m stages.NAME`; dvc.yaml chains them."""

import os

# Read by libgomp when torch loads it: how often a thread that waits for the others looks before it goes to sleep. Its
# own 300,000 costs a factor of seven as soon as something else wants one of two cores; none at all, or
# OMP_WAIT_POLICY=PASSIVE, makes a training step on idle cores half as slow again; this many, neither.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# One process trains, on one GPU: the Trainer would spread each planned batch over all that it sees.
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
