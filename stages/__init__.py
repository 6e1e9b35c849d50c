"""The pipeline's stages. Each is run as `python -m stages.NAME`; dvc.yaml chains them."""

import os

# Read by OpenMP when torch loads it. Threads that spin while they wait cost a factor of ten or more as soon as
# something else wants one of the cores; threads that sleep cost next to nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
