"""A federation through other people's networks: nginx with its default limits that ends TLS, and proxies that allow CONNECT."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest
from blake3 import blake3
from tests.e2e import jobs
from tests.e2e.agents import Agent, agents, furnish
from tests.e2e.networks import NGINX, ConnectProxy, Nginx, guide_conf, needs_nginx, nginx, until
from tests.e2e.world import CHUNK, free_port, make_project, serving

from hansa import codec
from hansa.admin.client import connect
from hansa.admin.here.enrolling import enroll
from hansa.errors import IdentityError, UnreachableError
from hansa.provision.changes import revoke
from hansa.provision.project import ServerSection
from hansa.runtime.authz.certificates import Authority, Identity, certify, key_pem, make_root, new_key, pem
from hansa.runtime.authz.renewal import write_secret
from hansa.runtime.client.renewing import credentials_of
from hansa.runtime.config import Kit, load_kit
from hansa.runtime.protocol.messages import Hello, Welcome, Work
from hansa.runtime.store.blobs import FileBlobs
from hansa.runtime.transport.blobs import download, upload
from hansa.runtime.transport.http import Connection
from hansa.simulation.engine import simulate

NAMES = ["cleveland", "hungarian", "switzerland", "long-beach"]  # slots as in the data
HOST = "fl.example.test"  # no resolver here knows it: a proxy does


@pytest.fixture(scope="module")
def expected() -> str:
    """The SHA-256 of the model that the simulation trains."""
    return codec.digest(simulate(jobs.wide, {"heart": jobs.data}, seed=7).model)


@contextmanager
def behind_nginx(folder: Path, *, plain: bool) -> Iterator[Nginx]:
    """A project whose sites call nginx, configured as the deployment guide says: over TLS with the project's certificate, or plain
    on one machine with a certificate of a hospital's CA."""
    port, own = free_port(), free_port()
    server = ServerSection(host="127.0.0.1", port=port, listen="127.0.0.1", listen_port=own, direct=False, addresses=("localhost",))
    kit, shown = folder / "kits" / "server", folder.parent / "hospital"
    if plain:
        server = msgspec.structs.replace(server, listen_tls=False, trust=hospital_certificate(shown))
    make_project(folder, NAMES, server=server, central_keys=False)
    places = {
        "8443 ssl": f"127.0.0.1:{port} ssl",
        "127.0.0.1:8444": f"127.0.0.1:{own}",
        "/srv/hansa/server": str(kit),
        "/etc/nginx/hansa": str(shown),
        "proxy_ssl_name fl.example.org": "proxy_ssl_name localhost",
    }
    conf = guide_conf(1 if plain else 0)
    for theirs, ours in places.items():
        conf = conf.replace(theirs, ours)
    with nginx(folder.parent / "nginx", conf, port=port) as front:
        yield front


def hospital_certificate(folder: Path) -> str:
    """A certificate for this machine of a CA that is not the project's, in the folder; the CA as PEM."""
    folder.mkdir()
    root, key = make_root("hospital", now=time.time()), new_key()
    whom = Identity(name="front", kind="server", org="hospital", project="hospital")
    shown = certify(key.public_key(), whom, Authority(root.certificate, root.key), now=time.time(), days=30, hosts=["127.0.0.1"])
    (folder / "certificate.pem").write_bytes(pem(shown))
    (folder / "key.pem").write_bytes(key_pem(key))
    return pem(root.certificate).decode()


@needs_nginx
def test_a_run_through_nginx_with_its_default_limits_gives_the_bits_of_the_simulation(tmp_path: Path, expected: str) -> None:
    folder = tmp_path / "office"
    with behind_nginx(folder, plain=False) as front, serving(folder) as server:
        enroll_all(folder)
        job, large = large_bundle(tmp_path / "job", 3 * CHUNK)
        with agents(folder / "kits", NAMES), connect(folder / "kits" / "lea") as lea:
            run = lea.submit(job, seed=7, sites=NAMES, include=[large])
            assert run.wait().state == "completed"
            assert hash_of(run.download(tmp_path / "home")) == expected
            said = [line.split() for line in front.log.read_text().splitlines()]
            bodies = [int(size) for _, size, method in said if method == "PUT"]
            assert sum(bodies) > 3 * CHUNK + len(NAMES) * 2 * CHUNK
            assert max(bodies) == CHUNK
            assert {status for status, *_ in said} <= {"200", "201", "204", "206", "499"}
            server.stop()
            with pytest.raises(UnreachableError) as gone:
                lea.sites()
            assert (gone.value.code, gone.value.got) == ("front_upstream", "status 502 of nginx/" + nginx_version())
            server.start()
            assert {site.site for site in lea.sites()} == set(NAMES)


@needs_nginx
def test_an_nginx_that_takes_no_body_of_our_size_is_named_and_nothing_is_lost_until_it_does(tmp_path: Path, expected: str) -> None:
    folder, narrow = tmp_path / "office", "client_max_body_size 64k; location /"
    with behind_nginx(folder, plain=True) as front, serving(folder):
        enroll_all(folder)
        front.reload("location /", narrow)
        job, large = large_bundle(tmp_path / "job", CHUNK)
        with agents(folder / "kits", NAMES) as sites, connect(folder / "kits" / "lea") as lea:
            with pytest.raises(UnreachableError) as refused:
                lea.submit(job, seed=7, sites=NAMES, include=[large])
            assert (refused.value.code, refused.value.exit_code) == ("front_body", 4)
            run = lea.submit(f"{jobs.__file__}:wide", seed=7, sites=NAMES)
            log = sites[NAMES[0]].log
            until(lambda: "code=front_body" in log.read_text(), "the agent names it")
            assert "allow 1 MiB: client_max_body_size 1m" in log.read_text()
            front.reload(narrow, "location /")
            assert run.wait().state == "completed"
            assert hash_of(run.download(tmp_path / "home")) == expected


def enroll_all(folder: Path) -> None:
    for name in NAMES:
        enroll(load_kit(folder / "kits" / name), environment={})


def hash_of(home: Path) -> str:
    return hashlib.sha256((home / "model.safetensors").read_bytes()).hexdigest()


def far_away(folder: Path, sites: list[str]) -> int:
    """A project whose server has a name that nobody here resolves; the port at which it listens."""
    own = free_port()
    make_project(folder, sites, server=ServerSection(host=HOST, listen="127.0.0.1", listen_port=own), central_keys=False)
    return own


def test_a_run_through_proxies_that_allow_connect_gives_the_bits_of_the_simulation(
    tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "office"
    names = {f"{HOST}:8443": far_away(folder, NAMES)}
    with (
        serving(folder),
        ConnectProxy(names).serving() as open_,
        ConnectProxy(names, login="heart:s3cret").serving() as asking,
        ExitStack() as stack,
    ):
        kits = [furnish(folder / "kits" / name) for name in NAMES]
        environment = {"HTTPS_PROXY": open_.url, "NO_PROXY": "localhost,.example.org"}
        for kit in kits[2:]:  # these sites say it themselves, with a login
            (kit / "site.toml").write_text(f'proxy = "{asking.url}"\n' + (kit / "site.toml").read_text())
            write_secret(kit / "proxy.login", b"heart:s3cret\n")
        for kit in kits:
            enroll(load_kit(kit), environment=environment)
        agents = [Agent(kit, environment).start(ready=False) for kit in kits]
        for agent in agents:
            stack.callback(agent.stop)
        monkeypatch.setenv("HTTPS_PROXY", asking.url.replace("//", "//heart:s3cret@"))
        with connect(folder / "kits" / "lea") as lea:
            run = lea.submit(f"{jobs.__file__}:wide", seed=7, sites=NAMES)
            next(event for event in run.events() if event.kind == "task.closed")
            open_.cut()
            asking.cut()
            assert run.wait().state == "completed"
            home = run.download(tmp_path / "home")
        assert hash_of(home) == expected
        logs = "".join(agent.log.read_text() for agent in agents)
    assert {*open_.asked} == {*asking.asked} - {f"CONNECT {HOST}:8443 407"} == {f"CONNECT {HOST}:8443 200"}
    assert "server.lost" in logs  # every tunnel was cut once, and nobody minded
    assert "s3cret" not in logs


@pytest.mark.parametrize("front", [False, pytest.param(True, marks=needs_nginx)], ids=["direct", "nginx"])
def test_a_revoked_site_is_cut_in_the_middle_of_a_download_and_of_an_upload(tmp_path: Path, front: bool) -> None:
    folder, size = tmp_path / "office", 40 * CHUNK
    with ExitStack() as stack:
        if front:
            stack.enter_context(behind_nginx(folder, plain=False))
        else:
            make_project(folder, NAMES, central_keys=False)
        stack.enter_context(serving(folder))
        enroll(load_kit(folder / "kits" / NAMES[0]), environment={})
        kit = load_kit(folder / "kits" / NAMES[0])
        slow = stack.enter_context(ConnectProxy({kit.url[8:]: int(kit.url.rpartition(":")[2])}, rate=4 * CHUNK).serving())
        job, large = large_bundle(tmp_path / "job", size)
        with connect(folder / "kits" / "lea") as lea:
            lea.submit(job, sites=NAMES[:1], include=[large])
        blobs = stack.enter_context(closing(FileBlobs(tmp_path / "blobs", reserve_bytes=0)))
        came, left, seconds = asyncio.run(cut_off(kit, slow, blobs, large, lambda: revoke(folder, name=kit.name, now=time.time())))
    assert CHUNK <= came < size  # of what had left the server, the kernels on the way had a part yet
    assert CHUNK <= left < size // 2
    assert seconds < 10


async def cut_off(
    kit: Kit, slow: ConnectProxy, blobs: FileBlobs, large: Path, revoked: Callable[[], object]
) -> tuple[int, int, float]:
    """The bytes that came and that left when a site was revoked in the middle of both, and how long they went on after that."""
    digest = blake3(large.read_bytes()).hexdigest()
    moved = {"came": 0, "left": 0}

    def count(way: str, size: int) -> None:
        moved[way] += size

    async def busy(transfer: Awaitable[None]) -> float:
        with pytest.raises(IdentityError) as caught:
            await transfer
        assert caught.value.code == "revoked"
        return time.monotonic()

    async with Connection(credentials_of(kit), proxy=httpx.Proxy(slow.url)) as connection:
        await connection.post("/v1/hello", Hello(versions=[1], software="test"), Welcome)
        (offer,) = (await connection.get("/v1/work", Work, params={"after": "0", "hold_s": "20"}, hold_s=20)).offers
        sink = partial(blobs.upload, offer.bundle, offer.bundle_bytes)
        down = download(connection, offer.bundle, offer.bundle_bytes, sink, moved=partial(count, "came"))
        up = upload(connection, digest, large, moved=partial(count, "left"))
        transfers = asyncio.gather(busy(down), busy(up))
        while min(moved.values()) < CHUNK:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(revoked)
        begun = time.monotonic()
        ended = max(await transfers)
        return moved["came"], moved["left"], ended - begun


def large_bundle(folder: Path, size: int) -> tuple[str, Path]:
    """The job `wide`, and a file of so many bytes to go with it."""
    folder.mkdir()
    shutil.copy(Path(jobs.__file__), folder / "jobs.py")
    (folder / "large.bin").write_bytes(os.urandom(size))
    return f"{folder}/jobs.py:wide", folder / "large.bin"


def nginx_version() -> str:
    said = subprocess.run([str(NGINX), "-v"], capture_output=True, text=True, check=True).stderr
    return said.strip().rpartition("/")[2]
