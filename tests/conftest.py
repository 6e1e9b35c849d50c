"""For all tests."""

from __future__ import annotations

import signal

# Started in the background of a script, pytest inherits that Ctrl-C is ignored, and so would every program it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
