"""How code in a worker tells of its work while it goes on: its steps, the numbers that it tracks, and Python's logging."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Final

from hansa.core.task import Signal
from hansa.runtime.client.channel import Line, Logged, Stepped, Tracked, to_line

STEP_S: Final = 0.5  # between two lines that say no more than that there were steps
TEXT_LIMIT: Final = 4_000  # characters of one record
MOST_VALUES: Final = 64  # numbers of one moment
NAME_LIMIT: Final = 80


class Voice:
    """The worker's end of the line to its agent. Any thread may speak; a line is never broken by another."""

    def __init__(self, link: socket.socket) -> None:
        self._link, self._lock = link, threading.Lock()

    def say(self, message: Line) -> None:
        """Send a line; nothing if the agent has gone, which ends this process anyway."""
        with self._lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._link.sendall(to_line(message))


class Work(Signal):
    """A task under way: its abort signal, each check of which is a step, and the tracker of the numbers that it tells."""

    def __init__(self, voice: Voice) -> None:
        super().__init__()
        self._voice, self._steps, self._told = voice, 0, -math.inf
        self._fraction: float | None = None

    def check(self) -> None:
        """Raise `Aborted` if a stop was asked for; else it was a step."""
        super().check()
        self._step()

    def track(self, values: Mapping[str, float], step: int | None, of: int | None) -> None:
        """Pass the numbers on."""
        if step is not None and of is not None and of > 0:
            self._fraction = min(1.0, max(0.0, step / of))
        told = {name[:NAME_LIMIT]: value if math.isfinite(value) else None for name, value in list(values.items())[:MOST_VALUES]}
        if told:
            self._voice.say(Tracked(values=told, step=step, of=of))
        self._step()

    def _step(self) -> None:
        self._steps += 1
        now = time.monotonic()
        if now - self._told >= STEP_S:
            self._told = now
            self._voice.say(Stepped(steps=self._steps, fraction=self._fraction))


class Records(logging.Handler):
    """Passes the records of Python's logging on to the agent."""

    def __init__(self, voice: Voice) -> None:
        super().__init__()
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one on."""
        try:
            text = self.format(record)
        except (TypeError, ValueError, KeyError):  # a format string that its arguments do not fit: logging's own way to say so
            self.handleError(record)
            return
        self._voice.say(Logged(level=record.levelname[:20], logger=record.name[:NAME_LIMIT], text=text[:TEXT_LIMIT]))


def log_to(voice: Voice) -> None:
    """Send what the job's code logs, from INFO on, and each line that it prints, to the agent."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a worker's are text files
    root = logging.getLogger()
    root.addHandler(Records(voice))
    root.setLevel(logging.INFO)
