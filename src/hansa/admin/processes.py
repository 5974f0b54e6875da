"""The processes of a federation on one machine: started together, watched, and ended for sure, each by its own number."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from hansa.admin.local import Local
from hansa.errors import RunError

READY_S: Final = 30.0  # for the server to take connections
GRACE_S: Final = 10.0  # for processes to end when they are asked to
_PR_SET_PDEATHSIG: Final = 1
_TAIL: Final = 2_000  # characters of a log that an error shows
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Child:
    """A process of the federation, and the file that it prints to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()

    def failure(self) -> RunError:
        """That it has ended, as an error."""
        return RunError(f"{self.name} has ended", path=str(self.log), got=f"exit code {self.process.returncode}\n{self.tail}")


class Processes:
    """A server and its sites. Leaving the context ends all of them; should this process be killed, the kernel does."""

    def __init__(self, local: Local, environment: Mapping[str, str]) -> None:
        self._local, self._environment = local, {**environment, **_ONE_THREAD, "PYTHONUNBUFFERED": "1"}
        self.children: list[Child] = []
        self._told: set[str] = set()

    def __enter__(self) -> Processes:
        self._local.logs.mkdir(parents=True, exist_ok=True)
        try:
            self._start("server", ["-m", "hansa.cli", "server", "start"])
            for site in self._local.sites:
                self._start(site, ["-m", "hansa.runtime.client"])
            _await_ready(self.children[0])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def all_ready(self) -> None:
        """Return when the server has let every site in.

        Raises:
            RunError: one has ended instead; shows the end of its log.
        """
        for child in self.children[1:]:
            _await_ready(child)

    def ended(self) -> list[Child]:
        """Processes that have ended since they were last asked about."""
        found = [child for child in self.children if child.name not in self._told and child.process.poll() is not None]
        self._told.update(child.name for child in found)
        return found

    def wait(self) -> Child:
        """The first process that ends by itself."""
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            for child in self.children:
                handle = os.pidfd_open(child.process.pid)
                stack.callback(os.close, handle)
                selector.register(handle, selectors.EVENT_READ, child)
            ended: Child = selector.select()[0][0].data
            ended.process.wait()
            return ended

    def stop(self) -> None:
        """End the sites, then the server: asked first, then killed; an interrupt meanwhile kills at once."""
        sites, server = self.children[1:], self.children[:1]
        try:
            for group in (sites, server):
                for child in group:
                    _signal(child, signal.SIGTERM)
                _gone(group, GRACE_S)
        finally:
            for child in self.children:
                _signal(child, signal.SIGKILL)
                child.process.wait()
                if child.process.stdout is not None:
                    child.process.stdout.close()

    def _start(self, name: str, arguments: Sequence[str]) -> Child:
        log = self._local.logs / f"{name}.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, *arguments, str(self._local.kits / name)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # one line, when it is ready
                stderr=file,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for this process; it asks the others, in order
                preexec_fn=_end_with_parent,
            )
        child = Child(name, process, log)
        self.children.append(child)
        return child


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM as if it were Ctrl-C, while the context lasts."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _await_ready(child: Child) -> None:
    """Return when the process says that it is ready."""
    pipe = cast(IO[bytes], child.process.stdout)
    readable, _, _ = select.select([pipe], [], [], READY_S)
    line = pipe.readline() if readable else b""
    if not line.startswith(b"ready"):
        what = f"{child.name} did not start" if readable else f"{child.name} was not ready within {READY_S:.0f} s"
        raise RunError(what, path=str(child.log), got=child.tail or None)


def _signal(child: Child, number: signal.Signals) -> None:
    if child.process.poll() is None:
        child.process.send_signal(number)


def _gone(children: Sequence[Child], within_s: float) -> None:
    """Return when all have ended, or the time is over."""
    ends = time.monotonic() + within_s
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, ends - time.monotonic()))


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
