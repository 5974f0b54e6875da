"""Every fault of TLS and identity against a real server: told apart within 5 s by an agent, a person and a preflight."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.e2e.agents import Agent, furnish
from tests.e2e.world import Caller, free_port, make_project, serving

from hansa.admin.channel import Channel
from hansa.admin.here.preflight import look
from hansa.errors import HansaError
from hansa.provision.ca import issue, load_secrets
from hansa.provision.changes import add_site, revoke, rotate
from hansa.provision.project import ServerSection
from hansa.runtime.authz.policy import Member
from hansa.runtime.client.renewing import credentials_of
from hansa.runtime.config import Kit, load_kit
from hansa.runtime.protocol.messages import Hello, Welcome
from hansa.runtime.protocol.session import proof
from hansa.runtime.transport.faults import refusal
from hansa.runtime.transport.http import Connection

DAY = 86_400.0
SITES = ["sound", "old", "young", "gone", "bare", "swapped"]


@dataclass(frozen=True)
class World:
    """A project whose server is up, one of strangers, and what is to be closed in the end."""

    folder: Path
    strangers: Path
    new: Path
    stack: ExitStack

    def kit(self, name: str, folder: Path | None = None) -> Kit:
        return load_kit((folder or self.folder) / "kits" / name)

    def server(
        self, server: ServerSection | None = None, *, ahead_s: float = 0.0, made: float | None = None, name: str = ""
    ) -> Kit:
        """A site's kit for a new server: its clock is ahead, or its certificate was made at another time or for another name."""
        make_project(self.new, ["sound"], server=server)
        if made is not None:
            rotate(self.new, "server", now=made, zips=False)
        if name:
            self._rename(name)
        self.stack.enter_context(serving(self.new, ahead_s=ahead_s))
        return self.kit("sound", self.new)

    def _rename(self, name: str) -> None:
        kit, keys = self.new / "kits" / "server", load_secrets(self.new / "state")
        made = issue(keys, Member(name="server", kind="server", org="north"), "hearts", now=time.time(), hosts=[name])
        (kit / "certificate.pem").write_bytes(made.certificate)
        (kit / "key.pem").write_bytes(made.key)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    folder, strangers = tmp_path_factory.mktemp("faults") / "fed", tmp_path_factory.mktemp("strangers") / "fed"
    make_project(folder, SITES)
    port = port_of(load_kit(folder / "kits" / "sound"))
    make_project(strangers, ["sound"], server=ServerSection(host="127.0.0.1", port=port))
    for name, made in (("old", time.time() - 400 * DAY), ("young", time.time() + DAY)):
        rotate(folder, name, now=made, central_keys=True, zips=False)
    revoke(folder, name="gone", reason="left", now=time.time())
    with serving(folder):
        yield folder, strangers


@pytest.fixture
def world(standing: tuple[Path, Path], tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(*standing, tmp_path / "new", stack)


def another_projects_certificate(world: World) -> Kit:
    """The kit of a site into which somebody has put another project's certificate and its key."""
    folder = world.folder / "kits" / "swapped"
    for name in ("certificate.pem", "key.pem"):
        shutil.copy(world.strangers / "kits" / "sound" / name, folder / name)
    return load_kit(folder)


def a_name_that_the_server_does_not_know(world: World) -> Kit:
    """A new site's kit, whose roster was not given to the server."""
    roster = {path: path.read_bytes() for path in (world.folder / "kits" / "server").glob("*.json")}
    add_site(world.folder, "late", org="north", now=time.time(), central_keys=True, zips=False)
    for path, content in roster.items():
        path.write_bytes(content)
    return world.kit("late")


def nobody(world: World) -> Kit:
    make_project(world.new, ["sound"])
    return world.kit("sound", world.new)


def plain(world: World) -> Kit:
    return world.server(ServerSection(host="127.0.0.1", port=free_port(), listen="127.0.0.1", direct=False, listen_tls=False))


FAULTS: dict[str, tuple[Callable[[World], Kit], str, int, int | None]] = {  # the fault; its code, exit code, and preflight's
    "no certificate": (lambda world: replace(world.kit("bare"), direct=False), "no_certificate", 3, None),  # no kit is like this
    "a certificate of another CA": (another_projects_certificate, "wrong_ca", 3, 13),
    "a server of another CA": (lambda world: world.kit("sound", world.strangers), "wrong_ca", 3, 13),
    "an expired certificate": (lambda world: world.kit("old"), "expired", 3, 11),
    "a certificate of tomorrow": (lambda world: world.kit("young"), "not_yet_valid", 3, 11),
    "a server's expired certificate": (lambda world: world.server(made=time.time() - 400 * DAY), "expired", 3, 13),
    "a server's certificate of tomorrow": (lambda world: world.server(made=time.time() + DAY), "not_yet_valid", 3, 13),
    "a server of another name": (lambda world: world.server(name="fl.example.test"), "wrong_name", 3, 13),
    "a revoked site": (lambda world: world.kit("gone"), "revoked", 3, 11),
    "an unknown site": (a_name_that_the_server_does_not_know, "unknown_name", 3, 11),
    "a clock that is late": (lambda world: world.server(ahead_s=120.0), "clock_skew", 3, 15),
    "a clock that is early": (lambda world: world.server(ahead_s=-120.0), "clock_skew", 3, 15),
    "a server without TLS": (plain, "plaintext", 3, 13),
    "nobody there": (nobody, "connection_refused", 4, 12),
}


def port_of(kit: Kit) -> int:
    return int(kit.url.rpartition(":")[2])


@pytest.mark.parametrize(("arrange", "code", "exit_code", "preflight"), FAULTS.values(), ids=FAULTS)
def test_each_fault_is_told_apart_within_five_seconds_and_with_its_mend(
    world: World, arrange: Callable[[World], Kit], code: str, exit_code: int, preflight: int | None
) -> None:
    kit = arrange(world)
    for ask in (agent_asks, person_asks):
        begun = time.monotonic()
        with pytest.raises(HansaError) as caught:
            ask(kit)
        assert time.monotonic() - begun < 5.0
        assert (caught.value.code, caught.value.exit_code) == (code, exit_code), caught.value
        assert caught.value.hint
    if preflight is not None:
        first = next(check for check in look(kit.folder) if not check.good)
        assert (first.code, bool(first.hint)) == (preflight, True), first


def agent_asks(kit: Kit) -> None:
    async def main() -> None:
        async with Connection(credentials_of(kit), retry=False) as connection:
            await connection.post("/v1/hello", Hello(versions=[1], software="test"), Welcome)

    asyncio.run(main())


def person_asks(kit: Kit) -> None:
    with closing(Channel(kit)) as channel:
        channel.ask("GET", "/api/sites", dict)


def test_a_stolen_token_is_worth_nothing_without_its_key_and_a_replayed_proof_neither(world: World) -> None:
    with ExitStack() as stack:
        owner, thief = (stack.enter_context(calling(world.folder / "kits" / name)) for name in ("sound", "bare"))
        owner.fetch_token()
        path, url = f"/v1/blobs/{'0' * 64}", f"{owner.kit.url}/v1/blobs/{'0' * 64}"

        def sent(key_of: Caller, **changed: str) -> tuple[str, int]:
            own = proof(key_of.kit.private_key(), method="GET", url=url, now=time.time(), token=owner.token)
            headers = {"Authorization": f"DPoP {owner.token}", "DPoP": own, **changed}
            error = refusal(thief.client.get(path, headers={name: value for name, value in headers.items() if value}))
            return error.code, error.exit_code

        own = proof(owner.kit.private_key(), method="GET", url=url, now=time.time(), token=owner.token)
        elsewhere = proof(
            owner.kit.private_key(), method="GET", url=f"{owner.kit.url}/api/runs", now=time.time(), token=owner.token
        )
        assert sent(thief) == ("stolen_token", 3)
        assert sent(owner, DPoP="") == ("no_proof", 3)
        assert sent(owner, DPoP=elsewhere) == ("wrong_request", 3)
        assert sent(owner, DPoP=own)[0] == "missing_blob"  # the owner is let in, and asks for what is not there
        assert (
            sent(owner, Host="evil.example", Forwarded="host=evil.example;proto=http")[0] == "missing_blob"
        )  # nobody believes these
        assert sent(owner, DPoP=own) == ("replayed", 3)


def test_an_agent_that_can_never_be_let_in_ends_with_exit_code_3_and_says_why(world: World, tmp_path: Path) -> None:
    altered = shutil.copytree(world.folder / "kits" / "sound", tmp_path / "altered")
    (altered / "kit.toml").write_text((altered / "kit.toml").read_text() + "# mine\n")
    said = {altered: "a file of the kit was altered", world.strangers / "kits" / "sound": "not of this project's CA"}
    started = {kit: Agent(furnish(kit)).start(ready=False) for kit in said}
    for kit, agent in started.items():
        assert agent.ended() == 3
        assert said[kit] in agent.log.read_text().splitlines()[-1]


def calling(kit: Path) -> closing[Caller]:
    return closing(Caller.of(kit))
