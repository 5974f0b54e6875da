"""The door on real stores: what may be used once is used once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import msgspec
import pytest
from tests.unit.runtime.server.test_upkeep import full

from hansa.errors import IdentityError, StorageError
from hansa.provision.changes import provision, revoke
from hansa.provision.project import Organisation, Person, Project, ServerSection, Site
from hansa.runtime.authz.certificates import der, new_key
from hansa.runtime.authz.enrolment import request
from hansa.runtime.config import load_kit
from hansa.runtime.protocol.messages import Enrol, Enrolled
from hansa.runtime.protocol.session import Seen, proof
from hansa.runtime.server.door import Door
from hansa.runtime.server.inbox import Clock, Inbox
from hansa.runtime.server.state import Book
from hansa.runtime.store.blobs import FileBlobs
from hansa.runtime.store.event import Entry
from hansa.runtime.store.events import SqliteEvents
from hansa.runtime.store.group import GroupCommit

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_what_strangers_prove_is_not_remembered_and_what_a_member_proves_is_taken_once(tmp_path: Path) -> None:
    """Anybody can make a key, and so any number of proofs."""
    project = Project(
        name="hearts",
        server=ServerSection(host="localhost", port=8443),
        organisations=(Organisation(name="Uni"),),
        sites=(Site(name="north", org="Uni"),),
        people=(Person(name="alice", org="Uni", role="project_admin"),),
    )
    provision(project, tmp_path, now=time.time(), zips=False)
    alice = load_kit(tmp_path / "kits" / "alice")
    async with GroupCommit(SqliteEvents(tmp_path / "events.sqlite")) as group:
        door = Door(load_kit(tmp_path / "kits" / "server"), Inbox(Book(), group, FileBlobs(tmp_path / "blobs"), Clock()))
        door._seen = Seen(limit=1)
        url, now = f"{alice.url}/v1/token", time.time()
        stranger = new_key()
        for _ in range(3):
            with pytest.raises(IdentityError) as caught:
                door.token("POST", "/v1/token", proof(stranger, method="POST", url=url, now=now))
            assert caught.value.code == "no_certificate"
            with pytest.raises(IdentityError) as caught:
                door.admit("POST", "/v1/token", proof(stranger, method="POST", url=url, now=now, token="-"), "DPoP -", "admin")  # noqa: S106  no secret
            assert caught.value.code == "bad_signature"
        mine = proof(alice.private_key(), method="POST", url=url, now=now, chain=der(*alice.chain()))
        assert door.token("POST", "/v1/token", mine).token
        with pytest.raises(IdentityError) as caught:
            door.token("POST", "/v1/token", mine)
        assert caught.value.code == "replayed"


async def test_a_ticket_gives_one_key_a_certificate_also_when_two_ask_at_once(tmp_path: Path) -> None:
    project = Project(
        name="hearts",
        server=ServerSection(host="localhost", port=8443),
        organisations=(Organisation(name="Uni"),),
        sites=(Site(name="north", org="Uni"), Site(name="south", org="Uni")),
        people=(Person(name="alice", org="Uni", role="project_admin"),),
    )
    provision(project, tmp_path, now=time.time(), zips=False)
    kit = load_kit(tmp_path / "kits" / "north")
    key, chain, token = kit.bootstrap()

    def shown() -> str:
        return proof(key, method="POST", url=f"{kit.url}/v1/enroll", now=time.time(), chain=der(*chain))

    async with GroupCommit(SqliteEvents(tmp_path / "events.sqlite")) as group:
        door = Door(load_kit(tmp_path / "kits" / "server"), Inbox(Book(), group, FileBlobs(tmp_path / "blobs"), Clock()))
        asked = [Enrol(csr=request("north")[1], token=token) for _ in range(2)]
        told = await asyncio.gather(*(door.enrol("POST", "/v1/enroll", shown(), each) for each in asked), return_exceptions=True)
        assert [type(each) for each in told] == [Enrolled, IdentityError]
        assert getattr(told[1], "code", "") == "token_used"
        again = await door.enrol("POST", "/v1/enroll", shown(), asked[0])  # its answer may have been lost
        assert isinstance(again, Enrolled)
        assert msgspec.to_builtins(again)["certificate"].startswith("-----BEGIN CERTIFICATE")


async def test_on_a_full_disk_a_revocation_bites_at_once_and_is_on_record_when_there_is_room(tmp_path: Path) -> None:
    project = Project(
        name="hearts",
        server=ServerSection(host="localhost", port=8443),
        organisations=(Organisation(name="Uni"),),
        sites=(Site(name="north", org="Uni"), Site(name="south", org="Uni")),
        people=(Person(name="alice", org="Uni", role="project_admin"),),
    )
    provision(project, tmp_path, now=time.time(), zips=False)
    events = SqliteEvents(tmp_path / "events.sqlite")
    async with GroupCommit(events) as group:
        inbox = Inbox(Book(), group, FileBlobs(tmp_path / "blobs"), Clock())
        door = Door(load_kit(tmp_path / "kits" / "server"), inbox)
        with full(events):
            for size in (20_000, 200, 0):
                with contextlib.suppress(StorageError):
                    while True:
                        await inbox.commit({"project": [Entry("note", {"text": "x" * size})]})
            for name in ("north", "south"):
                revoke(tmp_path, name=name, now=time.time())
                with pytest.raises(StorageError):
                    await door._look()
                assert door.policy.revocation(name) is not None
        for _ in range(2):
            await door._look()
        await inbox.close()
        told = [event.data["version"] for event in events.read("project") if event.kind == "policy.taken"]
        assert told == [door.policy.version - 1, door.policy.version]
