"""A script's process: started, given tasks, and ended for sure with all that it has started."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from hansa.client import arrays, line, start
from hansa.client.line import Abort, Asks, Do, FromScript, Given, Needs, Raised, Sent, ToScript, Tracked
from hansa.core.protocols import Dataset, Part
from hansa.core.task import Shareable, Signal
from hansa.core.trees import Tree
from hansa.errors import ClientError

START_S: Final = 300.0  # until a script asks for its first task: the largest libraries take half a minute
GRACE_S: Final = 3.0  # for a script to leave a task that was aborted, or to end when there are no more
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

PARTS: Final[tuple[Part, ...]] = ("train", "valid", "test")

Load: TypeAlias = Callable[[str], object]
Track: TypeAlias = Callable[[Tracked], None]


class Killed(ClientError):
    """A signal ended the script in the middle of a task: nothing of its own doing, so that it may be tried again."""


class Script:
    """One process of a script, with a folder of its own, in which it begins and which is removed with it.

    It is in a session of its own, and a process beside it, which the script does not know, ends the session when this one has gone.
    """

    def __init__(self, path: Path, arguments: Sequence[str], *, threads: int | None) -> None:
        self._name = path.name
        self._buffer, self._heard = bytearray(), deque[FromScript]()
        self._asked = False
        with contextlib.ExitStack() as unless_it_starts:
            self.folder = Path(tempfile.mkdtemp(prefix="hansa-script-"))
            unless_it_starts.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._channel, theirs = map(unless_it_starts.enter_context, socket.socketpair())
            self._woken, self._wake = map(unless_it_starts.enter_context, socket.socketpair())
            watched, self._alive = os.pipe()
            unless_it_starts.callback(os.close, self._alive)
            one = dict.fromkeys(_THREADS, str(threads)) if threads else {}
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", start.__file__, str(theirs.fileno()), str(watched), str(path), *arguments],
                    pass_fds=(theirs.fileno(), watched),
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # a command's stdout may be kept for one JSON object
                    cwd=self.folder,
                    env={**os.environ, **one, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"},
                    start_new_session=True,
                )
            finally:
                os.close(watched)
            theirs.close()
            unless_it_starts.pop_all()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._channel, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def ask(self, do: Do, body: Shareable, *, abort: Signal, load: Load, track: Track, timeout_s: float | None = None) -> Shareable:
        """The reply to a task, with arrays that can be written to. A script that fails is ended: the next task needs a new one.

        `load` gives the data of a label, `track` takes what the script tells meanwhile; `timeout_s` counts once it has started.

        Raises:
            ClientError: it raised (`trace` is its traceback), ended, or did not answer in time. Killed: a signal ended it.
            Aborted: `abort` was triggered; the script lives on if it has left the task by itself.
        """
        task, reply = line.task_file(self.folder, do.number), line.reply_file(self.folder, do.number)
        left = False
        try:
            arrays.write(task, body)
            self._say(do)
            with self._stopped_by(abort):
                left = self._await(do, abort, load, track, timeout_s)
            if left:
                abort.check()
            return arrays.read(reply)
        except BaseException as error:
            if not left:
                self.close(0.0)
            if isinstance(error, ClientError):
                abort.check()  # then its end is what was asked for
            raise
        finally:
            task.unlink(missing_ok=True)
            reply.unlink(missing_ok=True)

    @property
    def up(self) -> bool:
        """Whether it can be given tasks."""
        return bool(self._selector.get_map())

    def hang_up(self) -> None:
        """Tell it that there is nothing more to do; `close` follows."""
        with contextlib.suppress(OSError):  # it has ended by itself
            self._channel.shutdown(socket.SHUT_RDWR)

    def close(self, within_s: float = GRACE_S) -> int:
        """End it: it is told that there is nothing more to do, and killed with all that it has started if it has not ended then.

        Returns its exit code; negative is a signal's number.
        """
        if not self.up:
            return self._process.wait()
        self._selector.close()
        for each in (self._channel, self._woken, self._wake):
            each.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the one that watches is in the group: the number is still its own
        os.close(self._alive)
        shutil.rmtree(self.folder, ignore_errors=True)
        return self._process.wait()

    def _await(self, do: Do, abort: Signal, load: Load, track: Track, timeout_s: float | None) -> bool:
        """Return when the script has answered (False), or has left the task because it was aborted (True)."""
        begun, told = time.monotonic(), False
        until = None if timeout_s is None else begun + timeout_s
        while True:
            limit = until if self._asked or told else begun + START_S
            message = self._next(limit)
            match message:
                case Asks(after=after):
                    if not self._asked and timeout_s is not None and not told:
                        until = time.monotonic() + timeout_s
                    self._asked = True
                    if told and after == do.number:
                        return True
                case Needs(label=label):
                    self._say(self._given(label, load))
                case Tracked():
                    track(message)
                case Sent(number=do.number):
                    return told
                case Raised(message=text, trace=trace):
                    raise ClientError(text, trace=trace)
                case None if abort.triggered and not told:
                    self._say(Abort(number=do.number, reason=abort.reason))
                    told, until = True, time.monotonic() + GRACE_S
                case None if limit is not None and time.monotonic() >= limit:
                    abort.check()
                    raise ClientError(f"TimeoutError: {self._name} {self._late(timeout_s)}")

    def _late(self, timeout_s: float | None) -> str:
        if not self._asked:
            return f"did not call hansa.client.receive() within {START_S:.0f} s"
        return f"did not answer the task within {timeout_s:g} s"

    def _next(self, until: float | None) -> FromScript | None:
        """The next message; None when it is `until`, or when a stop was asked for."""
        while not self._heard:
            ready = {key.fileobj for key, _ in self._selector.select(None if until is None else max(0.0, until - time.monotonic()))}
            if self._channel in ready:
                self._read()
            elif ready:
                self._woken.recv(64)
                return None
            else:
                return None
        return self._heard.popleft()

    def _read(self) -> None:
        try:
            data = self._channel.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            raise self._gone()
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        try:
            self._heard.extend(line.from_script(bytes(each)) for each in lines)
        except msgspec.MsgspecError as error:
            raise ClientError(f"ValueError: {self._name} said something that is not understood: {error}") from error
        if len(self._buffer) > line.LIMIT:
            raise ClientError(f"ValueError: {self._name} said a line without an end")

    def _gone(self) -> ClientError:
        """Why it has ended."""
        code = self.close()
        if code < 0:
            hint = "out of memory?" if -code == signal.SIGKILL else "what it printed is in the site's log"
            return Killed(f"Killed: {self._name} was ended by {signal.Signals(-code).name} ({hint})")
        why = "in the middle of a task" if self._asked else "before it called hansa.client.receive()"
        return ClientError(f"SystemExit: {self._name} ended with code {code} {why}")

    def _say(self, message: ToScript) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what it said last, or its end, is read next
            self._channel.sendall(line.encode(message))

    @contextlib.contextmanager
    def _stopped_by(self, abort: Signal) -> Iterator[None]:
        """While it lasts, a stop that is asked for interrupts the wait."""
        abort.calls.append(self._interrupt)
        try:
            if abort.triggered:
                self._interrupt()
            yield
        finally:
            abort.calls.remove(self._interrupt)

    def _interrupt(self) -> None:
        with contextlib.suppress(OSError):  # it has ended meanwhile; or it was woken already
            self._wake.send(b"!")

    def _given(self, label: str, load: Load) -> Given:
        """The site's data, as a script can be given them."""
        data = load(label)
        if isinstance(data, str | os.PathLike):
            return Given(form="path", path=str(Path(data).absolute()))
        if isinstance(data, Dataset):
            parts = {name: data.part(name) for name in PARTS}
            return self._written("rows", label, {name: {"x": each.x, "y": each.y} for name, each in parts.items()})
        if isinstance(data, Mapping):
            return self._written("arrays", label, data)
        why = "the site's loader gives nothing" if data is None else f"a script cannot be given a {type(data).__name__}"
        return Given(form="none", why=f"{why}; a path, a mapping of arrays or a dataset can be given")

    def _written(self, form: Any, label: str, body: Mapping[str, Any]) -> Given:
        made: Tree = arrays.tree(body)
        arrays.write(line.data_file(self.folder, label), Shareable(made))
        return Given(form=form)
