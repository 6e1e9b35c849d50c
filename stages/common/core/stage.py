"""Entry point of every stage."""

from __future__ import annotations

import sys
from collections.abc import Callable

from stages.common.core.errors import InputError
from stages.common.core.timing import write_time


def run_stage(main: Callable[[], object]) -> None:
    """Run ``main``; bad input becomes one line on stderr and exit code 2, an interrupt exit code 130.

    An interrupted stage must not exit with 0, or DVC would record incomplete outputs as final.
    """
    try:
        main()
        write_time()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: run the same command again; training resumes from its last saved state", file=sys.stderr)
        sys.exit(130)
