"""Signal: asks running work to stop."""

from __future__ import annotations

import time
from typing import Any


class Signal:
    """A value with the time at which it was set."""

    def __init__(self) -> None:
        self.value: Any = None
        self.trigger_time: float | None = None
        self.triggered = False

    def trigger(self, value: Any) -> None:
        self.value, self.trigger_time, self.triggered = value, time.time(), True

    def reset(self, value: Any = None) -> None:
        self.value, self.trigger_time, self.triggered = value, None, False
