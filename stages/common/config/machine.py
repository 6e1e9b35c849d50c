"""Section machine."""

from __future__ import annotations

from stages.common.config.base import Positive, Section


class MachineParams(Section):
    processes: Positive | None
