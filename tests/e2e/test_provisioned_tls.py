"""Certificates of real kits in real handshakes on loopback: mutual TLS, the bootstrap certificate, and who is turned away."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.provision.offices import HEARTS

from hansa.provision.changes import provision, rotate
from hansa.runtime.authz.certificates import check_chain, der, signing_request
from hansa.runtime.authz.enrolment import enrol
from hansa.runtime.authz.policy import read_policy
from hansa.runtime.config import BOOTSTRAP_FILE, BOOTSTRAP_KEY_FILE, Kit, load_kit, save_certificate, site_key

DAY = 86_400.0


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kits of today; `north` has enrolled, `south` has not."""
    folder, now = tmp_path_factory.mktemp("office"), time.time()
    provision(HEARTS, folder, now=now, zips=False)
    site, server = load_kit(folder / "kits" / "north"), load_kit(folder / "kits" / "server")
    _, chain, token = site.bootstrap()
    made = enrol(
        signing_request(site_key(site), "north"),
        token,
        bootstrap=check_chain(der(*chain), server.ca_certificate(), now=now),
        tickets=server.tickets().tickets,
        policy=read_policy(server.policy, server.project_key),
        authority=server.site_ca(),
        now=now,
    )
    save_certificate(site, made.certificate_pem, now=time.time())
    return folder / "kits"


@contextmanager
def listening(kit: Kit) -> Iterator[tuple[str, int]]:
    """A TLS server with the kit's certificate that asks for the client's; it serves one connection and answers what it read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(kit.certificate, kit.key)
    context.load_verify_locations(kit.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(10)
        served = pool.submit(_serve, listener, context)
        yield listener.getsockname()[:2]
        served.result(timeout=10)


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    plain, _ = listener.accept()
    plain.settimeout(10)
    try:
        with context.wrap_socket(plain, server_side=True) as connection:
            chain = connection.getpeercert(binary_form=True)
            connection.sendall(b"whole:" + (chain or b""))
    except OSError:  # the handshake failed; what the client sees is what is tested
        plain.close()


def client(ca: Path, certificate: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


def ask(address: tuple[str, int], context: ssl.SSLContext, *, name: str = "localhost") -> bytes:
    """What the server answers: the certificate that it saw."""
    with socket.create_connection(address, timeout=10) as plain, context.wrap_socket(plain, server_hostname=name) as connection:
        parts = list(iter(lambda: connection.recv(65_536), b""))
    answer = b"".join(parts)
    assert answer.startswith(b"whole:")
    return answer.removeprefix(b"whole:")


@pytest.mark.parametrize(("who", "kind"), [("north", "site"), ("alice", "admin"), ("admin", "admin")])
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_kit_and_the_server_know_each_other(kits: Path, who: str, kind: str, name: str) -> None:
    server, kit = load_kit(kits / "server"), load_kit(kits / who)
    with listening(server) as address:
        seen = ask(address, client(kit.ca, (kit.certificate, kit.key)), name=name)
    identity = check_chain((seen, *der(*kit.chain()[1:])), server.ca_certificate(), now=time.time())
    assert (identity.name, identity.kind) == (kit.name, kind)


def test_a_bootstrap_certificate_passes_the_handshake_and_is_known_for_what_it_is(kits: Path) -> None:
    server, kit = load_kit(kits / "server"), load_kit(kits / "south")
    with listening(server) as address:
        seen = ask(address, client(kit.ca, (kit.folder / BOOTSTRAP_FILE, kit.folder / BOOTSTRAP_KEY_FILE)))
    assert check_chain([seen], server.ca_certificate(), now=time.time()).kind == "bootstrap"


def test_a_client_without_a_certificate_is_told_that_one_is_required(kits: Path) -> None:
    with listening(load_kit(kits / "server")) as address, pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
        ask(address, client(kits / "north" / "ca.pem", None))


def test_a_client_of_another_project_trusts_neither_nor_is_trusted(kits: Path, tmp_path: Path) -> None:
    provision(HEARTS, tmp_path, now=time.time(), central_keys=True, zips=False)
    stranger = load_kit(tmp_path / "kits" / "north")
    with (
        listening(load_kit(kits / "server")) as address,
        pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get|self.signed"),
    ):
        ask(address, client(stranger.ca, (stranger.certificate, stranger.key)))
    with listening(load_kit(kits / "server")) as address, pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca|decrypt error"):
        ask(address, client(kits / "north" / "ca.pem", (stranger.certificate, stranger.key)))


def test_a_server_under_another_name_is_refused_by_its_name(kits: Path) -> None:
    kit = load_kit(kits / "north")
    with listening(load_kit(kits / "server")) as address, pytest.raises(ssl.SSLCertVerificationError) as caught:
        ask(address, client(kit.ca, (kit.certificate, kit.key)), name="evil.example")
    assert caught.value.verify_code == 62  # X509_V_ERR_HOSTNAME_MISMATCH


def test_a_site_cannot_play_the_server(kits: Path) -> None:
    site, kit = load_kit(kits / "north"), load_kit(kits / "alice")
    with listening(site) as address, pytest.raises(ssl.SSLCertVerificationError) as caught:
        ask(address, client(kit.ca, (kit.certificate, kit.key)))
    assert caught.value.verify_code == 26  # X509_V_ERR_INVALID_PURPOSE


def test_an_expired_and_a_future_certificate_are_told_apart_by_the_client(tmp_path: Path) -> None:
    provision(HEARTS, tmp_path, now=time.time(), central_keys=True, zips=False)
    kit = load_kit(tmp_path / "kits" / "north")
    for now, code in ((time.time() - 400 * DAY, 10), (time.time() + DAY, 9)):  # ..._CERT_HAS_EXPIRED, ..._NOT_YET_VALID
        rotate(tmp_path, "server", now=now, zips=False)
        with listening(load_kit(tmp_path / "kits" / "server")) as address, pytest.raises(ssl.SSLCertVerificationError) as caught:
            ask(address, client(kit.ca, (kit.certificate, kit.key)))
        assert caught.value.verify_code == code
