"""A run's process, as the server sees it: started, told what was committed, started again when it dies, ended for sure."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from hansa.core.task import Failure
from hansa.errors import InputError, StorageError
from hansa.files import storage_error
from hansa.runtime.jobs import link
from hansa.runtime.jobs.bundle import extract, open_bundle
from hansa.runtime.jobs.link import Came, Done, Line, Start
from hansa.runtime.sandbox import Mode
from hansa.runtime.server.inbox import RECORD_LIMIT, Inbox, Participates
from hansa.runtime.server.known import Run, stream_of
from hansa.runtime.server.places import LIVE, Places
from hansa.runtime.server.transfers import UPLOAD_LIMIT
from hansa.runtime.store.blob import Blobs, require_digest
from hansa.runtime.store.event import Entry, Event
from hansa.runtime.store.untrusted import take_file

_LOG: Final = logging.getLogger("hansa.server")
CRASHES: Final = 3  # deaths in a row without a finished step, after which a run has failed
_NONSENSE: Final = (msgspec.MsgspecError, InputError, ValueError, KeyError)
GRACE_S: Final = 5.0  # for a run's process to end when it is asked to
LAST_S: Final = 0.5  # for what a process that has ended had still printed
LOG_LIMIT: Final = 16 << 20  # bytes of a run's log.txt
LOG_BLOCK: Final = 64 * 1024
SEAL_S: Final = 30.0  # for the folder of a run that was ended to be written: curves take seconds
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "HANSA_DATA")
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class _Record(msgspec.Struct, rename={"shared": "global"}):
    """What the server itself reads of a record."""

    round: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)] = 0
    shared: dict[str, float | None] = {}


@dataclass(frozen=True, slots=True)
class Enclosing:
    """How the processes of runs are enclosed: they see nothing in `data` but their own run's, and none of `secrets`.

    Each has `memory_bytes` of its own at most, and writes no file of more than `file_bytes`; 0: no limit.
    """

    mode: Mode
    data: Path
    secrets: Sequence[Path]
    memory_bytes: int = 0
    file_bytes: int = 0


class Runner:
    """Keeps the process of one run alive until the run has ended or is to stop. `environment` is the server's."""

    def __init__(
        self, run: Run, inbox: Inbox, places: Places, absent: Participates, environment: Mapping[str, str], walls: Enclosing
    ) -> None:
        self._run, self._inbox, self._places, self._absent, self._walls = run, inbox, places, absent, walls
        home = str(places.room(run.id).absolute())
        passed_on = {name: environment[name] for name in _PASSED_ON if name in environment}
        self._environment = passed_on | _ONE_THREAD | {"HOME": home, "TMPDIR": home}
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._printed: asyncio.Task[None] | None = None
        self._stopping = ""
        self._done = self._written = False  # the run has ended; its process has said so, and written how

    def came(self, came: Came) -> None:
        """Tell the process what was committed; one that has died asks when it is back."""
        self._send(came)

    async def serve(self) -> None:
        """Run the process, again and again if it dies, until the run has ended or is to stop.

        Raises:
            StorageError: the disk is full; the run can go on later.
        """
        try:
            while not (self._done or self._stopping):
                why = await self._once()
                if not (self._done or self._stopping):
                    await self._crashed(why)
        finally:
            await self._end_process()
            await self._seal()
            if self._run.over:
                await asyncio.to_thread(self._take_home)

    def stop(self, why: str) -> None:
        """Ask the process to end; `serve` then returns."""
        self._stopping = self._stopping or why
        self._send(link.Stop(reason=why))
        if self._writer is not None:
            self._writer.close()  # what it is computing, it notices this when it next asks

    async def _once(self) -> str:
        """One life of the process; why it ended."""
        source = await asyncio.to_thread(_extracted, self._run, self._inbox.blobs, self._places)
        reader = await self._begin(self._start(source))
        why = ""
        try:
            while not self._stopping and (line := await reader.readline()):
                await self._take(link.from_run(line))
        except _NONSENSE as error:  # the user's code shares the process with the link
            why = f"its process said something that is not understood: {error}"
        except ConnectionError as error:
            why = str(error)
        finally:
            code = await self._end_process()
        return why or (f"its process was ended by signal {-code}" if code < 0 else f"its process ended with code {code}")

    async def _begin(self, start: Start) -> asyncio.StreamReader:
        """Start a process and tell it what it is for; what it says."""
        ours, theirs = socket.socketpair()
        try:
            self._process = await self._spawn(theirs)
        except OSError as error:
            ours.close()
            raise storage_error(error, self._places.work(self._run.id)) from error
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=link.LINE_LIMIT)
        self._send(start)
        return reader

    async def _spawn(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        says, prints = os.pipe()
        self._printed = asyncio.create_task(_keep_log(says, self._places.work(self._run.id) / "log.txt"))
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # its folder, which it can write in, is no place to import from
                "-m",
                "hansa.runtime.server.run_main",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=prints,
                stderr=prints,
                env=self._environment,
                cwd=self._places.room(self._run.id),
                start_new_session=True,
            )
        finally:
            os.close(prints)

    def _start(self, source: Path) -> Start:
        what = self._run.what
        return Start(
            run=what.run,
            reference=what.reference,
            source=str(source),
            folder=str(self._places.folder(what.run).absolute()),
            blobs=str(self._places.blobs.absolute()),
            room=str(self._places.room(what.run).absolute()),
            handed=str(self._places.handed(what.run).absolute()),
            sandbox=self._walls.mode,
            hidden=[str(each) for each in (self._walls.data, *self._walls.secrets)],
            sites=what.sites,
            seed=what.seed,
            submitted=self._run.created,
            memory_bytes=self._walls.memory_bytes,
            file_bytes=self._walls.file_bytes,
        )

    async def _take(self, message: link.FromRun) -> None:
        """Do what the process asks. What it does not wait for is committed in order, while it goes on."""
        run, inbox = self._run, self._inbox
        match message:
            case link.Open():
                _require(message.seq > 0 and set(message.slots) <= set(range(len(run.what.sites))), message)
                await asyncio.to_thread(self._adopt, message.body)
                self._send(await inbox.open(run, message, self._absent))
            case link.Assign():
                await inbox.again(run, message, self._absent)
            case link.Ready():
                self._note("run.ready", {"rounds": message.rounds, "restored": message.restored})
            case link.Close():
                named = {each.slot for each in (*message.admitted, *message.refused, *message.lost)}
                _require(named <= run.steps[message.seq].asked.keys(), message)
                self._note("task.closed", msgspec.to_builtins(_short(message)))
            case link.Drop():
                self._drop(message)
            case link.Report():
                self._note("round", {"record": _record(message.record)})
            case link.Saved():
                await asyncio.wait([self._note("checkpoint", {"round": message.round, "seq": message.seq})])
                # before the next step opens: whoever is told of a blob then finds it
                await asyncio.to_thread(inbox.blobs.drop, inbox.book.spent_blobs(run))
            case Done():
                for digest in message.models.values():
                    await asyncio.to_thread(self._adopt, digest)
                await asyncio.to_thread(self._take_home)
                await inbox.commit({stream_of(run.id): [Entry("run.ended", _ended(message))]})
                self._done = self._written = True

    def _adopt(self, digest: str) -> None:
        """Take over a blob that the process has made: it may have written anything there.

        Raises:
            InputError: it is no plain file, or not what its name says.
        """
        blobs, handed = self._inbox.blobs, self._places.handed(self._run.id) / require_digest(digest)
        if blobs.size(digest) is not None:
            handed.unlink(missing_ok=True)
        elif take_file(handed, blobs, limit=UPLOAD_LIMIT).digest != digest:
            raise InputError("a blob is not what its name says", path=digest)

    def _drop(self, message: link.Drop) -> None:
        """Put on record which admitted replies were not added; a resumed run says it again."""
        asked = self._run.steps[message.seq].asked
        if fresh := [each for each in message.dropped if not asked[each.slot].dropped]:
            brief = [link.Verdict(each.slot, each.attempt, each.failure and _brief(each.failure)) for each in fresh]
            self._note("task.dropped", msgspec.to_builtins(link.Drop(seq=message.seq, dropped=brief)))

    def _note(self, kind: str, data: Mapping[str, Any]) -> asyncio.Future[list[Event]]:
        committing = self._inbox.begin({stream_of(self._run.id): [Entry(kind, data)]})
        committing.add_done_callback(self._noted)
        return committing

    def _noted(self, committing: asyncio.Future[Any]) -> None:
        """What could not be committed ends the process: it goes on from its checkpoint when there is room."""
        if not committing.cancelled() and committing.exception() is not None:
            self.stop(f"the server cannot keep what happens: {committing.exception()}")

    def _send(self, line: Line) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(link.encode(line))

    async def _crashed(self, why: str) -> None:
        """Put the death on record; the last one of a row ends the run."""
        run = self._run
        last = f"; see {self._places.work(run.id).name}/log.txt at the server"
        entries = [Entry("run.crashed", {"reason": why})]
        if run.restarts + 1 >= CRASHES:
            reason = f"{why}, {CRASHES} times without a finished step{last}"
            entries.append(Entry("run.ended", {"state": "failed", "reason": reason, "code": "crashed"}))
            self._done = True
        await self._inbox.commit({stream_of(run.id): entries})

    async def _end_process(self, within_s: float = GRACE_S) -> int:
        """The exit code of the process, which is ended if it does not end by itself, with all that it has started."""
        process, self._process = self._process, None
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
            self._writer = None
        if process is None:
            return 0
        try:
            async with asyncio.timeout(within_s):
                await process.wait()
        except TimeoutError:
            _LOG.warning("run.killed run=%s seconds=%.0f", self._run.id, within_s)
        finally:
            code = await _kill(process)
            if (printed := self._printed) is not None:
                self._printed = None
                await asyncio.wait([printed], timeout=LAST_S)  # its last words; what it has started may hold the pipe open
                printed.cancel()
        return code

    async def _seal(self) -> None:
        """Have it written into the run folder how the run stands, where its process could not.

        The job's code may have left anything there, links to files of the server's among it: who writes is enclosed as the job was.
        """
        run = self._run
        if run.state == "running" or self._written or not (self._places.folder(run.id) / "run.json").exists():
            return
        start = self._start(self._places.work(run.id) / "source")
        await self._begin(msgspec.structs.replace(start, ended=run.state, reason=run.reason))
        if code := await self._end_process(SEAL_S):
            _LOG.warning("run.not_sealed run=%s code=%d", run.id, code)  # the events say how it ended as well

    def _take_home(self) -> None:
        """Put the live lines into the run folder, which people download, if the job's code has left a place for them there."""
        live, target = self._places.live(self._run.id), self._places.folder(self._run.id) / LIVE
        if live.exists() and target.parent.exists():
            part = target.with_name(f".{LIVE}.part")
            try:
                part.unlink(missing_ok=True)
                part.hardlink_to(live)
                part.replace(target)
            except OSError as error:
                _LOG.warning("live.not_kept run=%s why=%r", self._run.id, str(error))


async def _keep_log(handle: int, path: Path) -> None:
    """Keep what a process prints until the pipe's other end closes; no more than LOG_LIMIT, and the file says so."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(handle, "rb", buffering=0)
    )
    try:
        with path.open("ab", buffering=0) as log:
            while block := await reader.read(LOG_BLOCK):
                room = LOG_LIMIT - log.tell()
                if room > 0:
                    log.write(block[:room])
                    if len(block) >= room:
                        log.write(b"\n[the log is cut here: what came behind %d MiB is not kept]\n" % (LOG_LIMIT >> 20))
    except OSError as error:
        _LOG.warning("run.log_lost path=%s why=%r", path, str(error))
        while await reader.read(LOG_BLOCK):  # the process goes on
            pass
    finally:
        transport.close()


async def _kill(process: asyncio.subprocess.Process) -> int:
    """End what is left of the process's group; its exit code."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its own session: the group is its own, too
    return await process.wait()


def _extracted(run: Run, blobs: Blobs, places: Places) -> Path:
    """The folder with the run's source."""
    work = places.work(run.id)
    try:
        for folder in (work, places.room(run.id), places.handed(run.id), places.folder(run.id).parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = blobs.path(run.what.bundle).read_bytes()
    except OSError as error:
        raise StorageError("a run cannot be started", run=run.id, got=str(error)) from error
    return extract(open_bundle(content), work / "source").absolute()


def _short(close: link.Close) -> link.Close:
    """Without tracebacks: those stand with the results."""
    refused = [link.Verdict(each.slot, each.attempt, each.failure and _brief(each.failure)) for each in close.refused]
    return msgspec.structs.replace(close, refused=refused, hint=close.hint and close.hint[-4_000:])


def _brief(failure: Failure) -> Failure:
    return Failure(failure.code, failure.message[:500], failure.path)


def _require(holds: bool, message: link.FromRun) -> None:
    """Return if a message can be: an event is folded again at every start of the server, which no job may stop.

    Raises:
        InputError: it cannot.
    """
    if not holds:
        raise InputError("its process said what cannot be", got=repr(message)[:200])


def _record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as JSON holds it, without the sites where they would be too many: metrics.jsonl has them.

    Raises:
        msgspec.ValidationError: its round is no whole number, or its global metrics are no numbers.
    """
    text = msgspec.json.encode(record)
    msgspec.json.decode(text, type=_Record)
    if len(text) > RECORD_LIMIT:
        text = msgspec.json.encode({name: value for name, value in record.items() if name not in ("sites", "raised")})
    plain: dict[str, Any] = msgspec.json.decode(text)
    return plain


def _ended(done: Done) -> dict[str, Any]:
    return {"state": done.state, "reason": done.reason[:4_000], "code": done.code, "models": done.models, "bytes": done.model_bytes}
