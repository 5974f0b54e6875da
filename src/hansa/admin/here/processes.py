"""The processes of a federation on one machine: started together, watched, and ended for sure, each by its own number."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeAlias

from hansa.admin.here.local import Local
from hansa.errors import HansaError, RunError

READY_S: Final = 30.0  # for a process to say that it is ready
GRACE_S: Final = 10.0  # for processes to end when they are asked to
_SET_PDEATHSIG, _SET_NAME = 1, 15  # prctl's
_TAIL: Final = 2_000  # characters of a log that an error shows
_LIBC: Final = ctypes.CDLL(None, use_errno=True)

Serve: TypeAlias = Callable[[Path], int]


@dataclass(frozen=True)
class Parts:
    """What a server and a site do with their kit: each says `ready` on stdout, and serves until SIGTERM.

    `load` is what the server's process can do before there is a kit: load what it needs.
    """

    server: Serve
    site: Serve
    load: Callable[[], None] = lambda: None


@dataclass
class Child:
    """A process of the federation, and the file that it prints to. `code` is what it ended with; None while it lives."""

    name: str
    log: Path
    pid: int
    handle: int  # a pidfd: never another process's, whatever becomes of the number
    said: int  # the end of a pipe
    code: int | None = None

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        if self.code is None and select.select([self.handle], [], [], 0)[0]:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code is None

    def send(self, number: signal.Signals) -> None:
        """Signal it, if it is there."""
        if self.alive:
            signal.pidfd_send_signal(self.handle, number)

    def failure(self) -> RunError:
        """That it has ended, as an error that shows the end of its log."""
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()
        return RunError(f"{self.name} has ended", path=str(self.log), got=f"exit code {self.code}\n{tail}")

    def await_ready(self) -> None:
        """Return when it says that it is ready.

        Raises:
            RunError: it ended instead, or takes too long.
        """
        readable, _, _ = select.select([self.said], [], [], READY_S)
        if not readable:
            raise RunError(f"{self.name} was not ready within {READY_S:.0f} s", path=str(self.log))
        if not os.read(self.said, 4_096).startswith(b"ready"):
            select.select([self.handle], [], [], GRACE_S)
            raise self.failure() if not self.alive else RunError(f"{self.name} does not say that it is ready", path=str(self.log))


class Processes:
    """A server and its sites, forked from this process, which has loaded what they need and has one thread.

    The context forks the server, which loads what it needs while this process provisions it; `begin` tells it where its kit is.
    Leaving the context ends all of them; should this process be killed, the kernel asks them to end.
    """

    def __init__(self, parts: Parts, environment: Mapping[str, str]) -> None:
        self._parts, self._environment = parts, environment
        self._local: Local | None = None
        self._order = -1
        self.children: list[Child] = []
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        ordered, self._order = os.pipe()
        try:
            self._fork("server", partial(self._ordered, ordered))
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(ordered)
        return self

    def begin(self, local: Local) -> None:
        """Let the server serve its kit."""
        self._local = local
        local.logs.mkdir(parents=True, exist_ok=True)
        self.children[0].log = local.logs / "server.log"
        with contextlib.suppress(BrokenPipeError):  # it has ended: who waits for it to be ready is told
            os.write(self._order, os.fsencode(local.folder.absolute()))
        self._close_order()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_sites(self) -> None:
        """Start the sites as soon as the server is ready: earlier, they would have to try again.

        Raises:
            RunError: the server has ended instead.
        """
        if self._local is None:
            raise RunError("the server was given no kit yet")
        self.children[0].await_ready()
        for site in self._local.sites:
            log, kit = self._local.logs / f"{site}.log", self._local.kits / site
            self._fork(site, partial(_serve, self._parts.site, kit, log), log)

    def all_ready(self) -> None:
        """Return when the server has let every site in.

        Raises:
            RunError: one has ended instead.
        """
        for child in self.children[1:]:
            child.await_ready()

    def ended(self) -> list[Child]:
        """Processes that have ended since they were last asked about."""
        found = [child for child in self.children if child.name not in self._told and not child.alive]
        self._told.update(child.name for child in found)
        return found

    def wait(self) -> Child:
        """The first process that ends by itself."""
        handles = {child.handle: child for child in self.children}
        ended = handles[select.select(list(handles), [], [])[0][0]]
        return ended if not ended.alive else self.wait()

    def stop(self) -> None:
        """End the sites, then the server: asked first, then killed; an interrupt meanwhile kills at once."""
        try:
            for group in (self.children[1:], self.children[:1]):
                for child in group:
                    child.send(signal.SIGTERM)
                _gone(group, GRACE_S)
        finally:
            for child in self.children:
                child.send(signal.SIGKILL)
                _gone([child], GRACE_S)
                os.close(child.handle)
                os.close(child.said)
            self.children = []
            self._close_order()

    def _close_order(self) -> None:
        if self._order >= 0:
            os.close(self._order)
            self._order = -1

    def _ordered(self, ordered: int) -> None:
        """The server's process: load what it needs, and serve the kit that it is told of; end if there will be none."""
        self._close_order()
        self._parts.load()
        if folder := os.read(ordered, 65_536):
            local = Path(os.fsdecode(folder))
            _serve(self._parts.server, local / "kits" / "server", local / "logs" / "server.log")

    def _fork(self, name: str, work: Callable[[], None], log: Path = Path(os.devnull)) -> None:
        parent = os.getpid()
        said, says = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        gc.freeze()  # what is loaded stays shared: a collection would write to each object's page
        if (pid := os.fork()) == 0:
            try:
                _become(name, says, parent, self._environment)
                work()
            finally:
                os._exit(1)
        os.close(says)
        self.children.append(Child(name, log, pid, os.pidfd_open(pid), said))


def _become(name: str, says: int, parent: int, environment: Mapping[str, str]) -> None:
    """Make this process one of the federation: a session of its own, so that Ctrl-C is for its parent; its own output and name."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    _LIBC.prctl(_SET_PDEATHSIG, signal.SIGTERM)
    _LIBC.prctl(_SET_NAME, f"hansa {name}".encode()[:15])
    if os.getppid() != parent:  # it has gone meanwhile
        os._exit(1)
    _output(os.open(os.devnull, os.O_RDONLY), 0)
    _output(says, 1)
    os.environ.update(environment)


def _output(source: int, target: int) -> None:
    os.dup2(source, target)
    os.close(source)


def _serve(serve: Serve, kit: Path, log: Path) -> None:
    """Serve, and end the process: its outermost call."""
    code = 1
    try:
        _output(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), 2)
        code = serve(kit)
    except HansaError as error:
        sys.stderr.write(f"error: {error}\n")
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


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


def _gone(children: Sequence[Child], within_s: float) -> None:
    """Return when all have ended, or the time is over."""
    ends = time.monotonic() + within_s
    for child in children:
        if child.alive:
            select.select([child.handle], [], [], max(0.0, ends - time.monotonic()))
        _ = child.alive  # takes its exit code in
