"""What a run's worker tells while it works: kept in the site's own log, and sent on as far as the site's policy lets it out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Final

import msgspec

from hansa.errors import HansaError
from hansa.runtime.client.channel import Live as Said
from hansa.runtime.client.channel import Logged, Stepped, Tracked
from hansa.runtime.protocol.messages import JSON_LIMIT, NOTE_TEXT, NOTES, Note, Notes, encode
from hansa.runtime.transport.http import Connection

PAUSE_S: Final = 1.0  # between two messages to the server
LOG_LIMIT: Final = 16 << 20  # bytes of a run's log at the site
LINES_S: Final = 50.0  # lines that leave, a second
LINES: Final = 1_000  # and at once
BYTES_S: Final = 32 * 1024.0
BYTES: Final = 512 * 1024
BATCH: Final = JSON_LIMIT // 2  # bytes of the lines of one message: a line has at most a quarter of that
_LOG: Final = logging.getLogger("hansa.site")


class Bucket:
    """A token bucket: `rate` a second, `burst` at once."""

    def __init__(self, rate: float, burst: float, *, now: float) -> None:
        self._rate, self._burst, self._left, self._at = rate, burst, burst, now

    def take(self, amount: float, *, now: float) -> bool:
        """Whether there was so much left, which is then gone.

        >>> bucket = Bucket(1.0, 2.0, now=0.0)
        >>> bucket.take(2.0, now=0.0), bucket.take(1.0, now=0.5), bucket.take(1.0, now=1.0)
        (True, False, True)
        """
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < amount:
            return False
        self._left -= amount
        return True


class Live:
    """The live lines of one run. `kinds` are what the policy lets out now; `begin` says what the worker is at.

    `steps` grows with all that the worker says: it is at work. `fraction` of the task is done, where its code says so.
    """

    def __init__(self, connection: Connection, run: str, log: Path) -> None:
        self._connection, self._run, self._log = connection, run, log
        self._task, self._round = "", 0
        self._waiting: deque[Note] = deque()
        self._left_out = 0
        self._full = False  # the server takes no more of this run
        self._wake = asyncio.Event()
        self._sending = asyncio.Lock()
        now = time.monotonic()
        self._lines, self._bytes = Bucket(LINES_S, LINES, now=now), Bucket(BYTES_S, BYTES, now=now)
        self.kinds: Collection[str] = ()
        self.steps = 0
        self.fraction: float | None = None

    def begin(self, task: str, round: int) -> None:  # noqa: A002  the field's word
        """The worker is at this task from now on."""
        self._task, self._round, self.fraction = task[:200], round, None
        self.steps = 0

    def heard(self, said: Said) -> None:
        """Take in what the worker has said."""
        self.steps += 1
        match said:
            case Stepped():
                self.fraction = said.fraction
            case Tracked() if "metrics" in self.kinds:
                self._note(self._made("metric", values=said.values, step=said.step, of=said.of))
            case Logged():
                self._write(f"{said.level} {said.logger}: {said.text}")
                if "logs" in self.kinds:
                    self._note(self._made("log", level=said.level, logger=said.logger, text=said.text[:NOTE_TEXT]))

    def printed(self, line: str) -> None:
        """Take in a line that the worker, or something that it started, has printed."""
        self.steps += 1
        self._write(line)
        if "logs" in self.kinds:
            self._note(self._made("log", text=line[:NOTE_TEXT]))

    async def serve(self) -> None:
        """Send what there is, in batches, until the caller cancels."""
        while True:
            await self._wake.wait()
            await self.flush()
            await asyncio.sleep(PAUSE_S)  # so that many lines are one message

    async def flush(self) -> None:
        """Send all that there is now: what was told of a task is at the server before its result."""
        async with self._sending:
            self._wake.clear()
            while self._waiting or self._left_out:
                batch = self._batch()
                if not self._waiting and self._left_out:
                    batch.append(self._made("log", level="WARNING", text=f"{self._left_out:,} live lines were left out: too many"))
                    self._left_out = 0
                try:
                    await self._connection.tell("/v1/notes", Notes(notes=batch))
                except HansaError as error:  # they are for looking at; what matters is in the results
                    self._full = self._full or error.code == "lines"
                    _LOG.warning("notes.lost run=%s lines=%d why=%r", self._run, len(batch), str(error))
                    return

    def _batch(self) -> list[Note]:
        """The next lines, as many as one message holds with room for one more."""
        batch, size = list[Note](), 0
        while self._waiting and len(batch) < NOTES - 1:
            size += len(encode(self._waiting[0]))
            if batch and size > BATCH:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _made(self, kind: str, **facts: object) -> Note:
        at = {"run": self._run, "kind": kind, "at": time.time(), "task": self._task, "round": self._round}
        return msgspec.convert({**at, **facts}, Note)

    def _note(self, note: Note) -> None:
        if self._full:
            return
        now = time.monotonic()
        size = len(note.text) + sum(len(name) + 8 for name in note.values)
        room = len(self._waiting) < LINES and self._lines.take(1, now=now) and self._bytes.take(size, now=now)
        if room:
            self._waiting.append(note)
        else:
            self._left_out += 1
        self._wake.set()

    def _write(self, line: str) -> None:
        """Add a line to the site's own log of the run, as long as it is not too long."""
        try:
            with self._log.open("ab") as log:
                if log.tell() < LOG_LIMIT:
                    log.write(line.encode(errors="replace") + b"\n")
        except OSError as error:
            _LOG.error("log.lost run=%s why=%r", self._run, str(error))
