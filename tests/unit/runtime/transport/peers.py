"""A peer that speaks the blobs' part of the site protocol over real TLS, and misbehaves as it is told."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hansa.provision.changes import provision
from hansa.provision.project import Organisation, Person, Project, ServerSection, Site
from hansa.runtime.authz.certificates import der
from hansa.runtime.config import Kit, load_kit
from hansa.runtime.protocol.messages import PROBLEM, Problem, Token, encode
from hansa.runtime.transport.http import Credentials


def make_kits(folder: Path, *, host: str = "localhost") -> Path:
    """The kits of a project whose server is on this machine, if not said otherwise."""
    project = Project(
        name="hearts",
        server=ServerSection(host=host, port=8443),
        organisations=(Organisation(name="Uni"),),
        sites=(Site(name="north", org="Uni"), Site(name="south", org="Uni")),
        people=(Person(name="alice", org="Uni", role="project_admin"),),
        central_keys=True,
    )
    provision(project, folder, now=time.time(), zips=False)
    return folder / "kits"


def credentials(kit: Kit, url: str, *, certificate: bool = True) -> Credentials:
    """Whom the kit lets ask there."""
    shown = (kit.certificate, kit.key) if certificate else (None, None)
    return Credentials(url=url, ca=kit.ca, certificate=shown[0], key_file=shown[1], chain=der(*kit.chain()), key=kit.private_key())


@dataclass
class Behaviour:
    """What the peer does. Each list is used up, one entry a request.

    cut: after so many bytes of a download the connection breaks. corrupt: whether a byte of a download is changed. deaf: whether an
    upload's chunk is taken in and never answered. hang_up: after so many bytes of an upload the connection breaks. stall: in the
    middle of a download nothing comes until this is set. refuse: problems that are answered instead, by path. says: what is
    answered to messages instead, with its encoding. posted: how long the messages were, in bytes. chunks: whether answers come in
    chunks, without their length, as some proxies send them.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, bytearray] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    corrupt: list[bool] = field(default_factory=list)
    deaf: list[bool] = field(default_factory=list)
    hang_up: list[int] = field(default_factory=list)
    stall: threading.Event | None = None
    refuse: list[tuple[str, Problem]] = field(default_factory=list)
    says: list[tuple[bytes, str]] = field(default_factory=list)
    posted: list[int] = field(default_factory=list)
    chunks: bool = False
    ahead_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    served_bytes: int = 0
    taken_bytes: int = 0


def _handler(how: Behaviour) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
            pass

        def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header(*(("Transfer-Encoding", "chunked") if how.chunks else ("Content-Length", str(len(content)))))
            self.end_headers()
            if how.chunks:
                halves = content[: len(content) // 2], content[len(content) // 2 :]
                content = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in halves if each) + b"0\r\n\r\n"
            if self.command != "HEAD":
                self.wfile.write(content)

        def _refused(self) -> bool:
            how.asked.append(f"{self.command} {self.path[:16]} {self.headers.get('Range', '')}".strip())
            for i, (path, problem) in enumerate(how.refuse):
                if self.path.startswith(path):
                    del how.refuse[i]
                    self._answer(problem.status, encode(problem), Content_Type=PROBLEM)
                    return True
            return False

        def _break(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(2)

        def do_POST(self) -> None:
            how.posted.append(len(self.rfile.read(int(self.headers.get("Content-Length", 0)))))
            if "token" not in self.path and how.says:
                content, encoding = how.says.pop(0)
                self._answer(200, content, Content_Encoding=encoding)
            elif not self._refused():
                self._answer(200, encode(Token(token="t", expires_in=300.0, server_time=time.time() + how.ahead_s)))  # noqa: S106

        def do_HEAD(self) -> None:
            if not self._refused():
                digest = self.path.rpartition("/")[2]
                here = len(how.blobs[digest]) if digest in how.blobs else len(how.parts.get(digest, b""))
                self._answer(200, Upload_Offset=str(here))

        def do_PUT(self) -> None:
            chunk = self.rfile.read(how.hang_up[0] if how.hang_up else int(self.headers["Content-Length"]))
            if self._refused():
                return
            digest, offset = self.path.rpartition("/")[2], int(self.headers["Upload-Offset"])
            part = how.parts.setdefault(digest, bytearray(how.blobs.get(digest, b"")))
            how.taken_bytes += len(chunk)
            if offset != len(part):
                self._answer(409, encode(Problem(title="elsewhere", status=409, code="offset")), Content_Type=PROBLEM)
                return
            part += chunk
            if how.hang_up and how.hang_up.pop():
                self._break()
                return
            if len(part) == int(self.headers["Upload-Length"]):
                how.blobs[digest] = bytes(part)
            if how.deaf and how.deaf.pop(0):
                self._break()
                return
            self._answer(204)

        def do_GET(self) -> None:
            if self._refused():
                return
            content = how.blobs[self.path.rpartition("/")[2]]
            begin, _, end = self.headers["Range"].removeprefix("bytes=").partition("-")
            piece = bytearray(content[int(begin) : int(end) + 1])
            if how.corrupt and how.corrupt.pop(0):
                piece[len(piece) // 2] ^= 1
            self.send_response(206)
            self.send_header("Content-Length", str(len(piece)))
            self.end_headers()
            limit = how.cut.pop(0) if how.cut else len(piece)
            how.served_bytes += min(limit, len(piece))
            with contextlib.suppress(OSError):
                if how.stall is not None:
                    self.wfile.write(piece[: len(piece) // 2])
                    how.stall.wait(10)
                    return
                self.wfile.write(piece[:limit])
            if limit < len(piece):
                self._break()

    return Handler


@contextlib.contextmanager
def peer(kit: Kit, how: Behaviour, *, direct: bool = True) -> Iterator[str]:
    """The peer's address, with the server's certificate, while it serves; not `direct`, it asks for none, as a proxy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kit.certificate, kit.key)
    context.load_verify_locations(kit.ca)
    context.verify_mode = ssl.CERT_REQUIRED if direct else ssl.CERT_NONE

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> Any:
            plain, address = self.socket.accept()
            plain.settimeout(10)
            return context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A broken connection is what is tested."""

    server = Server(("127.0.0.1", 0), _handler(how))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"https://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def site_kit(kits: Path, name: str = "north") -> Kit:
    """A site's kit."""
    return load_kit(kits / name)
