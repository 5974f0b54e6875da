"""The worker of a run, as the agent sees it: started, given tasks, and ended for sure, with all that it has started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from hansa.errors import RunError
from hansa.files import storage_error
from hansa.runtime.client.channel import (
    LINE_LIMIT,
    Abort,
    Begin,
    Broken,
    Do,
    Done,
    Line,
    Logged,
    Ready,
    Stepped,
    Tracked,
    from_worker,
    to_line,
)
from hansa.runtime.client.live import Live

LOAD_S: Final = 300.0  # for a job to load: the largest libraries take half a minute
GRACE_S: Final = 5.0  # for a task to stop when it is asked to
LAST_S: Final = 0.5  # for what a worker that has ended had still printed
LINE: Final = 16 * 1024  # bytes of a printed line, beyond which it is cut
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "HANSA_DATA")
_GPUS: Final = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


Answer: TypeAlias = Ready | Broken | Done


class WorkerDied(RunError):
    """The worker's process ended in the middle of its work."""

    code = "worker_died"


class WorkerBroken(RunError):
    """The worker cannot work: `trace` is the traceback of a job that does not load."""

    def __init__(self, told: Broken) -> None:
        super().__init__(told.message)
        self.code, self.trace = told.code[:64], told.trace


class Worker:
    """One worker, run by `python`. `live` takes what it says and prints while it works; `environment` is the
    agent's, of which it gets a part.
    """

    def __init__(self, begin: Begin, live: Live, environment: Mapping[str, str], python: Path) -> None:
        self._begin, self._live, self._python = begin, live, python
        passed_on = {name: environment[name] for name in _PASSED_ON if name in environment}
        threads, gpus = dict.fromkeys(_THREADS, str(begin.threads)), dict.fromkeys(_GPUS, ",".join(begin.gpus))
        self._environment = passed_on | threads | gpus | {"HOME": begin.folder, "TMPDIR": begin.folder}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._alive: int | None = None  # a pipe's end: when it closes, the worker's group ends
        self._printed: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether it was started and has not been seen to end."""
        return self._process is not None

    async def start(self) -> Ready:
        """Start it; what it says when it is enclosed and has loaded the job.

        Raises:
            WorkerBroken: it cannot work. WorkerDied: it ended before it could say anything.
        """
        ours, theirs = socket.socketpair()
        watched, self._alive = os.pipe()
        out, prints = os.pipe()
        try:
            self._printed = asyncio.create_task(_lines(out, self._live.printed))
            self._process = await self._spawn(theirs, watched, prints)
            self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=LINE_LIMIT)
        except BaseException:
            ours.close()
            await self.close()
            raise
        finally:
            theirs.close()
            os.close(watched)
            os.close(prints)
        try:
            async with asyncio.timeout(LOAD_S):
                said = await self._ask(self._begin)
        except TimeoutError:
            await self.close()
            raise WorkerBroken(Broken(code="timeout", message=f"the job did not load within {LOAD_S:.0f} s")) from None
        if not isinstance(said, Ready):
            await self.close()
            raise WorkerBroken(said if isinstance(said, Broken) else Broken(code="fault", message="the worker did not say Ready"))
        return said

    async def do(self, task: Do) -> Done:
        """What came of a task. If the caller is cancelled, the task is stopped: asked to first, ended with the worker if need be.

        Raises:
            WorkerDied: the worker ended; it can be started again.
        """
        asking = asyncio.ensure_future(self._ask(task))
        try:
            said = await asyncio.shield(asking)
        except asyncio.CancelledError:
            await self._interrupt(asking)
            raise
        if not isinstance(said, Done) or (said.seq, said.attempt) != (task.seq, task.attempt):
            await self.close()
            raise WorkerDied("the worker answered something else than it was asked")
        return said

    async def close(self) -> int:
        """End it and all that it has started; its exit code, 0 if there was none."""
        process, self._process = self._process, None
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        if process is not None:
            _kill(process)
        if (alive := self._alive) is not None:
            self._alive = None
            os.close(alive)
        code = 0 if process is None else await process.wait()
        if (printed := self._printed) is not None:
            self._printed = None
            await asyncio.wait([printed], timeout=LAST_S)  # its last words; what it has started may hold the pipe open
            printed.cancel()
        return code

    async def _spawn(self, theirs: socket.socket, watched: int, prints: int) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                str(self._python),
                "-P",  # its folder, which it can write in, is no place to import from
                "-m",
                "hansa.runtime.client.worker",
                str(theirs.fileno()),
                str(watched),
                pass_fds=(theirs.fileno(), watched),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=prints,
                stderr=prints,
                env=self._environment,
                cwd=self._begin.folder,
                start_new_session=True,
            )
        except OSError as error:
            raise storage_error(error, self._begin.folder) from error

    async def _ask(self, message: Line) -> Answer:
        """The worker's answer; what it says on the way is passed on."""
        if self._writer is None or self._reader is None or self._process is None:
            raise WorkerDied("the worker is not there")
        ended = asyncio.ensure_future(self._process.wait())
        process = self._process
        # what it has started may hold the socket open
        ended.add_done_callback(lambda done: None if done.cancelled() else _kill(process))
        try:
            self._writer.write(to_line(message))
            await self._writer.drain()
            while line := await self._reader.readline():
                said = from_worker(line)
                if not isinstance(said, Stepped | Tracked | Logged):
                    return said
                self._live.heard(said)
            why = "its process ended"
        except (ConnectionError, ValueError, msgspec.MsgspecError) as error:  # ValueError: a line without end
            why = f"it said something that is not understood: {error}"
        finally:
            ended.cancel()
        code = await self.close()
        raise WorkerDied(f"the worker was ended by signal {-code}" if code < 0 else f"the worker ended with code {code}: {why}")

    async def _interrupt(self, asking: asyncio.Future[Answer]) -> None:
        if self._writer is not None:
            self._writer.write(to_line(Abort(reason="not wanted any more")))
        done, _ = await asyncio.wait([asking], timeout=GRACE_S)
        if not done:
            await self.close()
            await asyncio.wait([asking])
        if not asking.cancelled() and asking.exception() is not None:
            await self.close()


async def _lines(handle: int, each: Callable[[str], None]) -> None:
    """Pass on each line that comes through a pipe, in pieces if it is long, until its other end closes."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(handle, "rb", buffering=0)
    )
    left = b""
    try:
        while block := await reader.read(LINE):
            *lines, left = (left + block).split(b"\n")
            for line in lines:
                each(line.decode(errors="replace"))
            if len(left) > LINE:
                each(left.decode(errors="replace"))
                left = b""
        if left:
            each(left.decode(errors="replace"))
    finally:
        transport.close()


def _kill(process: asyncio.subprocess.Process) -> None:
    """End the worker's group: it has its own session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
