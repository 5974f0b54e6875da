"""Other people's networks for tests: nginx with the configuration of the deployment guide, and a CONNECT proxy."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "deployment.md"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="no nginx here: apt-get install nginx-light")
PIECE = 64 * 1024


def guide_conf(number: int) -> str:
    """An nginx configuration of the deployment guide, as it stands there."""
    blocks: list[str] = re.findall(r"```nginx\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return blocks[number]


@dataclass(frozen=True)
class Nginx:
    """nginx at work. Each line of `log` is a status, the bytes of the request's body, and its method."""

    folder: Path
    pid: int

    @property
    def log(self) -> Path:
        return self.folder / "access.log"

    @property
    def conf(self) -> Path:
        return self.folder / "nginx.conf"

    def reload(self, old: str, new: str) -> None:
        """Put `new` for `old` in the configuration, and have it taken."""
        before = self.conf.read_text()
        assert old in before
        self.conf.write_text(before.replace(old, new))
        workers = self._workers()
        os.kill(self.pid, signal.SIGHUP)
        until(lambda: not workers & self._workers() and bool(self._workers()), "nginx has new workers")

    def _workers(self) -> set[str]:
        return set(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())


@contextlib.contextmanager
def nginx(folder: Path, conf: str, *, port: int) -> Iterator[Nginx]:
    """nginx with its default limits and this configuration, listening on `port`."""
    folder.mkdir(parents=True)
    temporary = "\n".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"{'user root;' if os.getuid() == 0 else ''}\ndaemon off;\nworker_processes 1;\npid {folder}/pid;\nevents {{}}\n"
        f"error_log {folder}/error.log;\nhttp {{\n{temporary}\n"
        f"log_format short '$status $content_length $request_method';\naccess_log {folder}/access.log short;\n{conf}\n}}\n"
    )
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: process.poll() is not None or _listens(port), "nginx listens")
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        yield Nginx(folder, process.pid)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def until(seen: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait for something that only the outside can see."""
    deadline = time.monotonic() + timeout_s
    while not seen():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def _small(one: socket.socket) -> socket.socket:
    """A socket that keeps little of what is under way: on this machine the kernel would take many megabytes at once."""
    for side in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        one.setsockopt(socket.SOL_SOCKET, side, PIECE)
    return one


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class ConnectProxy:
    """An HTTP proxy that knows CONNECT alone. It resolves names itself, as proxies do: `names` leads from host:port to a port here.

    login: NAME:PASSWORD that it asks for. denied: it forbids everything. rate: bytes a second of a tunnel, each way; 0: no limit.
    """

    names: dict[str, int]
    login: str = ""
    denied: bool = False
    rate: int = 0
    asked: list[str] = field(default_factory=list)
    port: int = 0
    _tunnels: set[asyncio.StreamWriter] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    @contextlib.contextmanager
    def serving(self) -> Iterator[ConnectProxy]:
        """The proxy, in a thread."""
        started, stop = threading.Event(), asyncio.Event()

        async def main() -> None:
            listener = _small(socket.socket())
            listener.bind(("127.0.0.1", 0))
            server = await asyncio.start_server(self._serve, sock=listener, limit=PIECE)
            self.port = listener.getsockname()[1]
            started.set()
            await stop.wait()
            server.close()
            self._cut()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others, return_exceptions=True)

        thread = threading.Thread(target=self._loop.run_until_complete, args=(main(),))
        thread.start()
        assert started.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            thread.join(20)
            self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every tunnel."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for writer in self._tunnels:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, _ = head.split("\r\n")[0].split(" ")
            status = self._judge(method, target, head)
            self.asked.append(f"{method} {target} {status}")
            if status == 200:
                await self._tunnel(target, reader, writer)
            else:
                writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # a side has gone
        finally:
            writer.close()

    def _judge(self, method: str, target: str, head: str) -> int:
        wanted = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.login and f"proxy-authorization: {wanted}".lower() not in head.lower():
            return 407
        if self.denied or method != "CONNECT":
            return 403
        return 200 if target in self.names else 502

    async def _tunnel(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            away = _small(socket.socket())
            away.setblocking(False)
            await self._loop.sock_connect(away, ("127.0.0.1", self.names[target]))
            beyond, out = await asyncio.open_connection(sock=away, limit=PIECE)
        except OSError:
            away.close()
            self.asked[-1] = f"CONNECT {target} 503"
            writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._tunnels |= {writer, out}
        try:
            await asyncio.gather(self._relay(reader, out), self._relay(beyond, writer))
        finally:
            out.close()
            self._tunnels -= {writer, out}

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                writer.write(piece)
                await writer.drain()
                if self.rate:
                    await asyncio.sleep(len(piece) / self.rate)
        writer.close()
