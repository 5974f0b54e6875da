"""The server's process: opens the stores, folds the events, serves until it is told to stop, and stops clean."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

from hansa.errors import InputError, StorageError, UnreachableError
from hansa.files import storage_error
from hansa.runtime import sandbox
from hansa.runtime.config import SECRET_FILES, Kit, ServerSettings, load_kit
from hansa.runtime.server.app import Served, make_app, make_metrics_app
from hansa.runtime.server.door import Door
from hansa.runtime.server.inbox import Clock, Inbox
from hansa.runtime.server.known import PROJECT
from hansa.runtime.server.live import Live
from hansa.runtime.server.papers import Papers
from hansa.runtime.server.people import People
from hansa.runtime.server.places import Places
from hansa.runtime.server.presence import Presence
from hansa.runtime.server.progress import Progresses
from hansa.runtime.server.runner import Enclosing
from hansa.runtime.server.scheduler import Scheduler
from hansa.runtime.server.state import Book
from hansa.runtime.store.blobs import FileBlobs
from hansa.runtime.store.event import Entry
from hansa.runtime.store.events import SqliteEvents
from hansa.runtime.store.group import GroupCommit

MOST_RUNS: Final = 8  # that go on at once
BUFFER: Final = 64 * 1024  # bytes of a connection that are read ahead; a request's headers have less than 20,000
CONNECTIONS: Final = 16_384  # at once; beyond it, who comes waits. A site has two or three, and keeps them
STOP_S: Final = 5.0  # for requests that are under way when the server stops
AGAIN_S: Final = 5.0  # after which what could not be put on record is looked at again
_TRY_S: Final = 0.02
_LOG: Final = logging.getLogger("hansa.server")


def serve(kit_folder: str | Path, *, environment: Mapping[str, str], ready: Callable[[str], None], most: int = MOST_RUNS) -> None:
    """Serve a project until SIGTERM or SIGINT. `ready` is called with the address when connections are taken.

    `environment` is the process's own, of which runs get a part.

    Raises:
        InputError: not a server's kit, or the port is in use. StorageError: the stores cannot be used, or another process does.
        SandboxError: runs cannot be enclosed as the kit says.
    """
    kit = load_kit(kit_folder)
    if kit.kind != "server":
        raise InputError("not a server's kit", path=str(kit.folder), got=kit.kind, hint="start it with the kit named `server`")
    _allow_files()
    mode = (kit.server or ServerSettings()).sandbox
    if why := sandbox.fault(mode, kit.folder):
        hint = 'mend it, or set [server] sandbox = "basic" in project.toml and provision again'
        raise sandbox.SandboxError("runs cannot be enclosed as [server] sandbox says", expected=mode, got=why, hint=hint)
    asyncio.run(_serve(kit, environment, ready, most))


def _allow_files() -> None:
    """Open as many files as the system lets us: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(kit: Kit, environment: Mapping[str, str], ready: Callable[[str], None], most: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    settings = kit.server or ServerSettings()
    port = _free_port(settings.host, settings.port)
    places = Places(kit.data.absolute())
    try:
        places.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, places.root) from error
    with contextlib.closing(SqliteEvents(places.events)) as events, contextlib.closing(_blobs(places, settings)) as blobs:
        book = Book()
        for event in events.all():
            book.apply(event)
        async with GroupCommit(events) as group:
            inbox = Inbox(book, group, blobs, Clock())
            await inbox.commit({PROJECT: [Entry("server.started", {"epoch": book.epoch + 1})]})
            door = Door(kit, inbox)
            presence = Presence(book.sites, inbox.lose)
            walls = _walls(kit, settings)
            scheduler = Scheduler(inbox, presence, places, door.policy, environment, walls, most=most)
            door.on_roster = lambda: _new_roster(door, scheduler, inbox)
            live = Live(places, inbox.bells)
            progresses = Progresses(book, inbox.bells, inbox.give_up)
            scheduler.on_end = live.forget
            people = People(door, inbox, events, scheduler, presence, places, live, progresses, kit.ca_certificate())
            papers = Papers(kit, inbox, lambda: server.swap(kit, settings))
            served = Served(people, kit.project, papers)
            server = _granian(kit, settings, port, make_app(served))
            numbers = _numbers(settings, make_metrics_app(served))
            watches = [watched(each.watch, stop) for each in (door, presence, progresses, scheduler, papers)]
            async with contextlib.AsyncExitStack() as beside:
                if numbers is not None:
                    numbers.running = asyncio.create_task(numbers.serve())
                    beside.push_async_callback(_stopped, numbers)
                await _until(stop, server, watches, kit, port, ready)
            inbox.hang_up()
            await scheduler.close()
            await _stopped(server)
            await inbox.close()


def _walls(kit: Kit, settings: ServerSettings) -> Enclosing:
    """How the processes of runs are enclosed: what is not said of their memory is three quarters of the machine's."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    secrets = [(kit.folder / name).absolute() for name in SECRET_FILES]
    memory = settings.run_memory_mb << 20 or machine // 4 * 3
    return Enclosing(settings.sandbox, kit.data.absolute(), secrets, memory, settings.run_file_mb << 20)


def _blobs(places: Places, settings: ServerSettings) -> FileBlobs:
    return FileBlobs(places.blobs, low_water=settings.low_water)


def _new_roster(door: Door, scheduler: Scheduler, inbox: Inbox) -> None:
    """A revocation bites now: held polls ask again whether they may go on."""
    scheduler.use(door.policy)
    inbox.bells.ring_all()


def _granian(kit: Kit, settings: ServerSettings, port: int, app: Any) -> _Embedded:
    return _Embedded(
        app,
        address=settings.host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=BUFFER),
        websockets=False,
        log_enabled=False,
        backlog=1024,
        backpressure=CONNECTIONS,
        ssl_cert=kit.certificate if settings.tls else None,
        ssl_key=kit.key if settings.tls else None,
        ssl_ca=kit.ca if kit.direct else None,
        ssl_client_verify=kit.direct,
    )


def _numbers(settings: ServerSettings, app: Any) -> _Embedded | None:
    """The server of the numbers with names, on this machine alone; None if nobody wants it."""
    if not settings.metrics_port:
        return None
    port = _free_port("127.0.0.1", settings.metrics_port)
    return _Embedded(
        app,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
    )


class _Embedded(Server):
    """The HTTP server, with the task that it runs in."""

    running: asyncio.Task[None]

    def swap(self, kit: Kit, settings: ServerSettings) -> None:
        """Serve new connections with the kit's certificate as it is now; what is under way ends as it began."""
        if not settings.tls:
            return
        ca = kit.ca if kit.direct else None
        self.build_ssl_context(kit.certificate, kit.key, None, SSLProtocols.tls13, ca, [], kit.direct)
        self.reload()  # type: ignore[no-untyped-call]  # granian annotates only a part of itself


async def watched(
    watch: Callable[[asyncio.Event], Coroutine[Any, Any, None]], stop: asyncio.Event, *, again_s: float = AGAIN_S
) -> None:
    """Keep a watch until the stop. One that could not put on record what it saw looks again: a full disk is nobody's end."""
    while not stop.is_set():
        try:
            await watch(stop)
        except StorageError as error:
            _LOG.error("watch.not_recorded what=%s why=%r", getattr(watch, "__qualname__", "watch"), str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again_s):
                    await stop.wait()


async def _until(
    stop: asyncio.Event, server: _Embedded, work: list[Any], kit: Kit, port: int, ready: Callable[[str], None]
) -> None:
    """Serve until the stop; what fails before ends the server."""
    server.running = asyncio.create_task(server.serve())
    tasks = [server.running, *(asyncio.create_task(each) for each in work), asyncio.create_task(stop.wait())]
    try:
        await _listening((kit.server or ServerSettings()).host, port, server.running)
        ready(kit.url)
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if not stop.is_set():
            raise UnreachableError("the HTTP server has ended", hint="see what it printed before")
    finally:
        stop.set()
        for task in tasks[1:]:
            if not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def _stopped(server: _Embedded) -> None:
    server.stop()  # type: ignore[no-untyped-call]  # granian annotates only a part of itself
    try:
        async with asyncio.timeout(STOP_S):
            await server.running
    except TimeoutError:
        return


async def _listening(host: str, port: int, running: asyncio.Task[None]) -> None:
    """Return when connections are taken. Granian tells nobody of the moment, so it is tried."""
    place = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    while not running.done():
        try:
            _, writer = await asyncio.open_connection(place, port)
        except OSError:
            await asyncio.wait([running], timeout=_TRY_S)
            continue
        writer.close()
        await writer.wait_closed()
        return


def _free_port(host: str, port: int) -> int:
    """The port, if nobody listens on it; any free one for 0. The server shares ports among its workers, and would not notice.

    Raises:
        InputError: it is in use, or may not be used; names it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            used = error.errno == errno.EADDRINUSE
            hint = (
                "another server is running: stop it, or choose another listen_port in project.toml and provision again"
                if used
                else "choose another listen and listen_port in project.toml and provision again"
            )
            what = "the port is in use" if used else f"the server cannot listen here: {error.strerror}"
            raise InputError(what, path="server.port", got=f"{host}:{port}", hint=hint) from error
        return int(trial.getsockname()[1])
