"""Every fault of the way to the server is told apart, within 5 s, with its mend."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.unit.runtime.transport.peers import Behaviour, credentials, make_kits, peer, site_kit

from hansa.errors import HansaError, IdentityError, UnreachableError
from hansa.provision.changes import rotate
from hansa.runtime.config import Kit, load_kit
from hansa.runtime.protocol.messages import Hello, Welcome
from hansa.runtime.transport.faults import LostError, refusal
from hansa.runtime.transport.http import Connection, Credentials

DAY = 86_400.0


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kits(tmp_path_factory.mktemp("office"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kits(tmp_path_factory.mktemp("other"))


def fault(who: Credentials, *, proxy: httpx.Proxy | None = None) -> HansaError:
    """What a site with these credentials meets."""

    async def main() -> None:
        async with Connection(who, retry=False, proxy=proxy) as connection:
            await connection.post("/v1/hello", Hello(versions=[1], software="test"), Welcome)

    begun = time.monotonic()
    with pytest.raises(HansaError) as caught:
        asyncio.run(main())
    assert time.monotonic() - begun < 5.0
    assert caught.value.hint
    return caught.value


def test_no_certificate(kits: Path) -> None:
    with peer(load_kit(kits / "server"), Behaviour()) as url:
        error = fault(credentials(site_kit(kits), url, certificate=False))
    assert (type(error), error.code) == (IdentityError, "no_certificate")


def test_a_certificate_of_another_project(kits: Path, strangers: Path) -> None:
    kit = site_kit(kits)
    with peer(load_kit(kits / "server"), Behaviour()) as url:
        who = credentials(site_kit(strangers), url)
        error = fault(
            Credentials(url=url, ca=kit.ca, certificate=who.certificate, key_file=who.key_file, chain=who.chain, key=who.key)
        )
    assert (type(error), error.code) == (IdentityError, "wrong_ca")


def test_a_server_of_another_project(kits: Path, strangers: Path) -> None:
    with peer(load_kit(strangers / "server"), Behaviour()) as url:
        error = fault(credentials(site_kit(kits), url))
    assert (type(error), error.code) == (IdentityError, "wrong_ca")


def test_a_server_under_another_name(tmp_path: Path) -> None:
    kits = make_kits(tmp_path, host="hansa.example.org")
    with peer(load_kit(kits / "server"), Behaviour()) as url:
        error = fault(credentials(site_kit(kits), url))
    assert (type(error), error.code) == (IdentityError, "wrong_name")


def test_a_site_that_plays_the_server(kits: Path) -> None:
    with peer(site_kit(kits, "south"), Behaviour()) as url:
        error = fault(credentials(site_kit(kits), url))
    assert (type(error), error.code) == (IdentityError, "wrong_kind")


@pytest.mark.parametrize(("days", "code"), [(-400, "expired"), (1, "not_yet_valid")])
def test_a_server_whose_certificate_is_of_another_time(tmp_path: Path, days: int, code: str) -> None:
    kits = make_kits(tmp_path)
    rotate(tmp_path, "server", now=time.time() + days * DAY, zips=False)
    with peer(load_kit(kits / "server"), Behaviour()) as url:
        error = fault(credentials(site_kit(kits), url))
    assert (type(error), error.code) == (IdentityError, code)


@pytest.mark.parametrize(("days", "code"), [(-400, "expired"), (1, "not_yet_valid")])
def test_a_site_whose_certificate_is_of_another_time(tmp_path: Path, days: int, code: str) -> None:
    kits = make_kits(tmp_path)
    rotate(tmp_path, "north", now=time.time() + days * DAY, central_keys=True, zips=False)
    with peer(load_kit(kits / "server"), Behaviour()) as url:
        error = fault(credentials(load_kit(kits / "north"), url))
    assert (type(error), error.code) == (IdentityError, code)


def test_nobody_listens(kits: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = fault(credentials(site_kit(kits), f"https://localhost:{port}"))
    assert isinstance(error, UnreachableError)
    assert error.code == "connection_refused"


def test_an_unknown_name(kits: Path) -> None:
    error = fault(credentials(site_kit(kits), "https://nowhere.invalid:8443"))
    assert isinstance(error, UnreachableError)
    assert error.code == "dns"


@contextmanager
def answering(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where each connection is given to `serve`."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_port_without_tls(kits: Path) -> None:
    def plain(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with answering(plain) as port:
        error = fault(credentials(site_kit(kits), f"https://localhost:{port}"))
    assert (type(error), error.code) == (IdentityError, "plaintext")


def test_a_port_that_never_answers(kits: Path) -> None:
    over = threading.Event()

    def silent(_: socket.socket) -> None:
        over.wait(8)

    with answering(silent) as port:
        error = fault(credentials(site_kit(kits), f"https://localhost:{port}"))
        over.set()
    assert isinstance(error, UnreachableError)
    assert error.code == "timeout"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("407 Proxy Authentication Required", "proxy_login"),
        ("403 Forbidden", "proxy_denied"),
        ("503 Service Unavailable", "proxy_lost"),
        ("418 I'm a teapot", "proxy"),
    ],
)
def test_a_proxy_that_says_no(kits: Path, answer: str, code: str) -> None:
    def deny(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())

    with answering(deny) as port:
        proxy = httpx.Proxy(f"http://127.0.0.1:{port}", auth=("north", "secret"))
        error = fault(credentials(site_kit(kits), "https://localhost:8443"), proxy=proxy)
    assert (type(error), error.code, error.got) == (LostError, code, answer)
    assert error.path == f"localhost:8443 through 127.0.0.1:{port}"
    assert "secret" not in str(error)


def test_a_proxy_that_is_not_there(kits: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = fault(credentials(site_kit(kits), "https://localhost:8443"), proxy=httpx.Proxy(f"http://127.0.0.1:{port}"))
    assert (type(error), error.code) == (LostError, "proxy_down")
    error = fault(credentials(site_kit(kits), "https://localhost:8443"), proxy=httpx.Proxy("http://nowhere.invalid:3128"))
    assert (type(error), error.code) == (LostError, "proxy_down")


@pytest.mark.parametrize(
    ("status", "code"),
    [(413, "front_body"), (502, "front_upstream"), (504, "front_timeout"), (403, "front_denied"), (404, "front"), (302, "front")],
)
def test_an_answer_that_is_not_the_servers_is_told_by_its_status_and_may_pass(status: int, code: str) -> None:
    page = httpx.Response(status, html="<html>no</html>", headers={"Server": "nginx/1.22.1"})
    error = refusal(page)
    assert (type(error), error.code, error.exit_code) == (LostError, code, 4)
    assert f"got status {status} of nginx/1.22.1" in str(error)
    assert error.hint


def test_a_kit_whose_ca_is_no_certificate_is_named(kits: Path, tmp_path: Path) -> None:
    who = credentials(site_kit(kits), "https://localhost:1")
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(HansaError, match="cannot be used"):
        Connection(Credentials(url=who.url, ca=tmp_path / "ca.pem", certificate=None, key_file=None, chain=(), key=who.key))


def test_a_secret_has_no_repr(kits: Path) -> None:
    kit: Kit = site_kit(kits)
    text = repr(credentials(kit, kit.url))
    assert "PrivateKey" not in text
    assert "key.pem" not in text
