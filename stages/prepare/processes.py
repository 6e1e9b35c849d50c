"""For the worker processes of stage prepare."""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process


def end_with_parent() -> None:
    """End this worker process when its parent process ends.

    A killed parent sends no signal; its workers would wait forever, or write into the folder of the next run.
    """
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()
