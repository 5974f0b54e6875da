"""A crew of worker processes: alive for the whole run, with job and data resident; arrays pass in anonymous shared memory.

Workers are forked from this process, before the run touches a framework in it; `start="spawn"` starts fresh interpreters and hands
them the job with cloudpickle (to one's own children only). Results are taken in the order in which they are asked for, and few are
ahead of it, so that a round's memory does not grow with its cohort.

A worker that dies (out of memory, a crash in a library, `os._exit`) fails the one call that it was at: another takes its place, and
its other calls are served again.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import pickle
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, Literal, cast

import cloudpickle
from threadpoolctl import threadpool_limits

from hansa.core.task import Failure, Shareable, Signal, Task
from hansa.core.trees import Tree
from hansa.errors import ConfigError, RunError
from hansa.references import FILE_MODULE
from hansa.simulation.sites import Answer, Call, Sites, failure_of

_HEAD = struct.Struct("<QI")  # bytes of the message; number of its parts in a memory file, 0 when it follows in the channel
_INLINE = 64 * 1024  # messages up to this many bytes go through the channel, which holds two: no end waits for the other to read
_ALIGN = 64
_AHEAD = 2  # calls that a worker is given at a time: the one it runs and the next
_MOST_DEATHS = 3  # in a row, without an answer between: then it is not one site's fault

Start = Literal["fork", "spawn"]


class Pool:
    """A fixed number of worker processes, each of which computes with `threads` threads."""

    def __init__(self, sites: Sites, workers: int, *, start: Start = "fork", threads: int = 1) -> None:
        if workers < 1:
            raise ConfigError("a pool has at least one worker", path="workers", got=workers)
        self._sites = sites
        self._workers: list[_Worker] = []
        self._job = b"" if start == "fork" else _pickled(sites)
        self._deaths = 0
        self._selector = selectors.DefaultSelector()
        self._kept: Mapping[int, Mapping[str, Tree]] = {}
        self._task: Task | None = None
        self._number = 0
        self._coming: deque[Call] = deque()
        self._done: dict[Call, Answer] = {}
        try:
            for _ in range(workers):
                self._start(threads)
        except BaseException:  # no more processes, or Ctrl-C: those that began are ended
            self.close()
            raise

    def begin(self, task: Task, calls: Sequence[Call], kept: Mapping[int, Mapping[str, Tree]]) -> None:
        """Hand the task to every worker and the first calls to each."""
        self._drain()
        self._number += 1
        self._task, self._kept = task, kept
        self._coming, self._done = deque(calls), {}
        for _ in range(_AHEAD):
            for worker in self._workers:
                self._give(worker)

    def answer(self, call: Call) -> Answer:
        """The answer of one call; waits for the worker that has it.

        Raises:
            RunError: worker processes keep dying.
        """
        while call not in self._done:
            if not any(call in worker.calls for worker in self._workers):
                if call in self._coming:
                    self._coming.remove(call)
                self._coming.appendleft(call)
                self._give(min(self._workers, key=lambda worker: len(worker.calls)), force=True)
            self._receive()
        return self._done.pop(call)

    def close(self) -> None:
        """End the workers; they are joined."""
        self._selector.close()
        for worker in self._workers:
            worker.socket.close()  # the end of its input ends a worker that waits
        for worker in self._workers:
            if worker.ended(within_s=0.5 if worker.calls else 5.0) is None:  # in the middle of a call that nobody waits for
                worker.process.kill()
                worker.ended(within_s=None)
        self._workers = []

    def _start(self, threads: int) -> None:
        """One more worker."""
        worker = _anew(threads) if self._job else _fork(self._sites, [w.socket for w in self._workers], threads)
        self._workers.append(worker)
        self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        if self._job:
            self._tell(worker, self._job)

    def _give(self, worker: _Worker, *, force: bool = False) -> None:
        ahead = len(self._done) + sum(len(w.calls) for w in self._workers)
        room = len(worker.calls) < _AHEAD and ahead < 2 * _AHEAD * len(self._workers)
        if not self._coming or not (room or force):
            return
        if worker.task != self._number:
            self._tell(worker, (self._number, self._task))
            worker.task = self._number
        call = self._coming.popleft()
        if self._tell(worker, (call, self._kept.get(call.slot, {}))):
            worker.calls.append(call)
        else:  # it has died since; its end of the channel says so when it is read
            self._coming.appendleft(call)

    def _receive(self) -> None:
        """Take in what the workers have ready; waits for the first."""
        for key, _ in self._selector.select():
            worker: _Worker = key.data
            try:
                answer = _recv(worker.socket)
            except (EOFError, ConnectionError):
                self._bury(worker)
                self._give(self._workers[-1])
                return  # what else was ready still is
            self._deaths = 0
            self._done[worker.calls.popleft()] = answer
            self._give(worker)

    def _tell(self, worker: _Worker, message: object) -> bool:
        """Whether it could be sent."""
        try:
            _send(worker.socket, message)
        except ConnectionError:
            return False
        return True

    def _bury(self, worker: _Worker) -> None:
        """Fail the call that a dead worker was at, put another in its place, and let the other calls be served again.

        Raises:
            RunError: several died without an answer between.
        """
        self._selector.unregister(worker.socket)
        worker.socket.close()
        self._workers.remove(worker)
        code = worker.ended(within_s=5)
        if code is None:  # it closed its end and lives on
            worker.process.kill()
            code = worker.ended(within_s=None)
        at = worker.calls.popleft() if worker.calls else None
        self._deaths += 1
        if self._deaths >= _MOST_DEATHS:
            site, task = None if at is None else self._sites.names[at.slot], None if self._task is None else self._task.name
            raise RunError(f"worker processes keep dying (exit code {code})", site=site, task=task, hint=_why_dead(code))
        if at is not None:
            message = f"the worker process died (exit code {code}; {_why_dead(code)})"
            self._done[at] = Answer(Shareable(), Failure("worker_died", message))
        self._coming.extendleft(reversed(worker.calls))
        self._start(1)  # a fork of a process in which a framework may have run by now: its threads are not there to be used

    def _drain(self) -> None:
        """Wait for calls of an earlier task that nobody asked for, so that answers and calls stay paired."""
        self._coming.clear()
        while any(worker.calls for worker in self._workers):
            self._receive()
            self._coming.clear()


class _Worker:
    """The parent's side of one worker; `calls` are given and not yet answered, in order."""

    def __init__(self, process: BaseProcess | subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.process, self.socket = process, channel
        self.calls: deque[Call] = deque()
        self.task = 0

    def ended(self, *, within_s: float | None) -> int | None:
        """The exit code of the process; None if it has not ended in time."""
        if isinstance(self.process, BaseProcess):
            self.process.join(within_s)
            return self.process.exitcode
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(within_s)
        return None


def _why_dead(exit_code: int | None) -> str:
    return "out of memory? try fewer workers" if exit_code == -signal.SIGKILL else "what it printed stands above"


def _fork(sites: Sites, others: Sequence[socket.socket], threads: int) -> _Worker:
    """A worker that begins as a copy of this process. It closes its copies of the parent's ends: they would outlive the parent."""
    with contextlib.ExitStack() as unless_it_starts:
        ours, theirs = map(unless_it_starts.enter_context, socket.socketpair())
        given = (sites, theirs, threads, [ours, *others])
        process = multiprocessing.get_context("fork").Process(target=_work, args=given, daemon=True)
        process.start()
        unless_it_starts.pop_all()
    theirs.close()
    return _Worker(process, ours)


def _anew(threads: int) -> _Worker:
    """A worker in a fresh interpreter. Unlike multiprocessing's, it does not run the main script again: the job brings all."""
    with contextlib.ExitStack() as unless_it_starts:
        ours, theirs = map(unless_it_starts.enter_context, socket.socketpair())
        code = f"import sys; sys.path[:] = {sys.path!r}; from hansa.simulation.pool import work; work({theirs.fileno()}, {threads})"
        process = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, process_group=0
        )
        unless_it_starts.pop_all()
    theirs.close()
    return _Worker(process, ours)


def _pickled(sites: Sites) -> bytes:
    """The job for a new process. What a job file defines goes by value: its module exists under that name only here."""
    files = [module for name, module in sys.modules.items() if name.startswith(FILE_MODULE)]
    for module in files:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cast(bytes, cloudpickle.dumps(sites))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigError(f"the job cannot be sent to a new process: {error}", path="start", hint='use start="fork"') from error
    finally:
        for module in files:
            cloudpickle.unregister_pickle_by_value(module)


def work(descriptor: int, threads: int) -> None:
    """Serve as a worker on an inherited channel, whose first message is the job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=descriptor)
    _work(pickle.loads(_recv(channel)), channel, threads, [])  # noqa: S301  written by our own parent


def _work(sites: Sites, channel: socket.socket, threads: int, inherited: Sequence[socket.socket]) -> None:
    """Answer calls until the parent closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    for each in inherited:  # a copy of the parent's end would keep the channel open after the parent is gone
        each.close()
    task: Task | None = None
    abort = Signal()
    with contextlib.closing(sites), threadpool_limits(threads), contextlib.suppress(EOFError, ConnectionError):
        while True:
            first, second = _recv(channel)
            if isinstance(second, Task):
                task = second
            elif task is not None:
                _reply(channel, sites.serve(task, first.slot, second, abort))


def _reply(channel: socket.socket, answer: Answer) -> None:
    try:
        _send(channel, answer)
    except (pickle.PicklingError, TypeError, AttributeError) as error:  # the site's reply holds what cannot cross a process
        _send(channel, Answer(Shareable(), failure_of(error)))


def _send(channel: socket.socket, message: object) -> None:
    """Send a message: a large one goes through a memory file whose descriptor is passed along."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(data), *(buffer.raw() for buffer in buffers)]
    sizes = [part.nbytes for part in parts]
    if sum(sizes) <= _INLINE:
        data = pickle.dumps(message, protocol=5)
        channel.sendall(_HEAD.pack(len(data), 0))
        channel.sendall(data)
        return
    lengths = struct.pack(f"<{len(sizes)}Q", *sizes)
    total = _aligned(len(lengths)) + sum(map(_aligned, sizes))
    file = _memory_file()
    try:
        os.ftruncate(file, total)
        with mmap.mmap(file, total) as memory:
            memory[: len(lengths)] = lengths
            offset = _aligned(len(lengths))
            for part, size in zip(parts, sizes, strict=True):
                memory[offset : offset + size] = part
                offset += _aligned(size)
        head = _HEAD.pack(total, len(sizes))
        socket.send_fds(channel, [head[:1]], [file])
        channel.sendall(head[1:])
    finally:
        os.close(file)


def _memory_file() -> int:
    """A file without a name, in memory where the system has such files. Raises OSError when there is no room for one."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("hansa")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _recv(channel: socket.socket) -> Any:
    """The next message; its arrays are views of shared memory, freed with them."""
    first, files, _, _ = socket.recv_fds(channel, 1, 1)
    if not first:
        raise EOFError
    size, count = _HEAD.unpack(first + _exactly(channel, _HEAD.size - 1))
    if not count:
        return pickle.loads(_exactly(channel, size))  # noqa: S301  between a parent and its own child
    memory = memoryview(mmap.mmap(files[0], size))
    os.close(files[0])
    parts, offset = [], _aligned(8 * count)
    for length in struct.unpack_from(f"<{count}Q", memory):
        parts.append(memory[offset : offset + length])
        offset += _aligned(length)
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301  between a parent and its own child


def _exactly(channel: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    got = 0
    while got < size:
        n = channel.recv_into(view[got:])
        if n == 0:
            raise EOFError
        got += n
    return data


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
