"""Provisioning, and what comes after it: added, revoked, rotated. Each command may be repeated, and none forgets."""

from __future__ import annotations

import fcntl
from pathlib import Path

import msgspec
import pytest
from tests.unit.provision.offices import HEARTS, NOW, opened

from hansa.errors import ConfigError, HansaError, IdentityError, InputError
from hansa.provision import changes
from hansa.provision.project import Organisation, Person, ServerSection, Site
from hansa.provision.state import load_roster, save_roster
from hansa.runtime.authz.certificates import Identity, check_chain, der
from hansa.runtime.authz.policy import Policy, read_policy
from hansa.runtime.config import load_kit


def server_policy(folder: Path) -> Policy:
    kit = load_kit(folder / "kits" / "server")
    return read_policy(kit.policy, kit.project_key)


def identity(folder: Path, name: str) -> Identity:
    kit = load_kit(folder / "kits" / name)
    chain = kit.chain() if kit.enrolled else kit.bootstrap()[1]
    return check_chain(der(*chain), kit.ca_certificate(), now=NOW)


def refusal(folder: Path, who: Identity) -> str:
    with pytest.raises(IdentityError) as caught:
        server_policy(folder).admit(who)
    return caught.value.code


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everybody_gets_a_kit_and_a_place_in_the_roster(tmp_path: Path) -> None:
    done = opened(tmp_path)
    assert sorted(kit.name for kit in done.kits) == ["alice", "bob", "north", "server", "south"]
    assert sorted(path.name for path in (tmp_path / "kits").iterdir()) == ["admin", "alice", "bob", "north", "server", "south"]
    policy = server_policy(tmp_path)
    assert (policy.version, done.version) == (1, 1)
    for name in ("north", "south", "alice", "bob"):
        assert policy.admit(identity(tmp_path, name)).name == name


def test_the_offices_keys_can_be_read_by_their_owner_only(tmp_path: Path) -> None:
    opened(tmp_path)
    for name in ("ca.key", "project.key"):
        assert (tmp_path / "state" / name).stat().st_mode & 0o777 == 0o600
    for folder in ("state", "kits/alice", "kits/north"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700


def test_the_ca_key_is_in_no_kit(tmp_path: Path) -> None:
    opened(tmp_path)
    for name in ("ca.key", "project.key"):
        secret = (tmp_path / "state" / name).read_bytes()
        assert all(secret not in content for path, content in everything(tmp_path / "kits").items())


def test_a_second_time_nothing_changes(tmp_path: Path) -> None:
    opened(tmp_path)
    before = everything(tmp_path)
    done = opened(tmp_path, now=NOW + 100)
    assert (done.changed, done.kits, done.version) == (False, (), 1)
    assert everything(tmp_path) == before


def test_a_site_added_to_the_file_gets_a_kit_and_the_others_keep_theirs(tmp_path: Path) -> None:
    opened(tmp_path)
    before = everything(tmp_path / "kits" / "north")
    more = msgspec.structs.replace(HEARTS, sites=(*HEARTS.sites, Site(name="west", org="Uni")))
    done = opened(tmp_path, more)
    assert ([kit.name for kit in done.kits], done.version) == (["west"], 2)
    assert everything(tmp_path / "kits" / "north") == before
    assert server_policy(tmp_path).admit(identity(tmp_path, "west")).kind == "site"


def test_a_site_added_by_command_stays_when_the_file_does_not_list_it(tmp_path: Path) -> None:
    opened(tmp_path)
    added = changes.add_site(tmp_path, "west", org="Uni", now=NOW, zips=False)
    assert ([kit.name for kit in added.kits], added.version) == (["west"], 2)
    assert not changes.add_site(tmp_path, "west", org="Uni", now=NOW, zips=False).changed
    assert not opened(tmp_path).changed
    assert server_policy(tmp_path).member("west") is not None


def test_the_servers_kit_knows_the_new_sites_ticket(tmp_path: Path) -> None:
    opened(tmp_path)
    changes.add_site(tmp_path, "west", org="Uni", now=NOW, zips=False)
    assert "west" in [ticket.site for ticket in load_kit(tmp_path / "kits" / "server").tickets().tickets]


def test_central_keys_are_made_here_when_asked_for(tmp_path: Path) -> None:
    opened(tmp_path, central_keys=True)
    assert load_kit(tmp_path / "kits" / "north").enrolled
    assert identity(tmp_path, "north").kind == "site"
    assert load_kit(tmp_path / "kits" / "server").tickets().tickets == ()
    changes.add_site(tmp_path, "west", org="Uni", now=NOW, zips=False)
    assert identity(tmp_path, "west").kind == "bootstrap"
    other = tmp_path / "other"
    opened(other, msgspec.structs.replace(HEARTS, central_keys=True))
    changes.add_site(other, "west", org="Uni", now=NOW, zips=False)
    assert identity(other, "west").kind == "site"


def test_a_role_changes_without_a_new_kit(tmp_path: Path) -> None:
    opened(tmp_path)
    done = changes.add_user(tmp_path, "bob", org="Uni", role="auditor", now=NOW, zips=False)
    assert (done.changed, done.kits) == (True, ())
    member = server_policy(tmp_path).member("bob")
    assert member is not None
    assert member.role == "auditor"


def test_a_revoked_name_is_shut_out_at_once_and_for_good(tmp_path: Path) -> None:
    opened(tmp_path)
    who = identity(tmp_path, "north")
    done = changes.revoke(tmp_path, name="north", reason="left", now=NOW)
    assert done.version == 2
    assert refusal(tmp_path, who) == "revoked"
    assert "north" not in [ticket.site for ticket in load_kit(tmp_path / "kits" / "server").tickets().tickets]
    assert not changes.revoke(tmp_path, name="north", now=NOW).changed
    assert not opened(tmp_path).changed  # the project file may list it still
    with pytest.raises(ConfigError, match="revoked for good"):
        changes.rotate(tmp_path, "north", now=NOW)
    for org in ("North Hospital", "Uni"):
        with pytest.raises(ConfigError, match="revoked for good"):
            changes.add_site(tmp_path, "north", org=org, now=NOW)
    with pytest.raises(ConfigError, match="revoked for good"):
        changes.add_user(tmp_path, "north", org="Uni", role="lead", now=NOW)


def test_one_certificate_is_revoked_by_its_serial_number(tmp_path: Path) -> None:
    opened(tmp_path)
    who = identity(tmp_path, "bob")
    changes.revoke(tmp_path, serial=who.serial.upper(), now=NOW)
    assert refusal(tmp_path, who) == "revoked"
    with pytest.raises(ConfigError, match="not a serial number"):
        changes.revoke(tmp_path, serial="xyz", now=NOW)


def test_rotating_gives_new_keys_and_shuts_the_old_ones_out(tmp_path: Path) -> None:
    opened(tmp_path)
    old = {name: identity(tmp_path, name) for name in ("north", "alice")}
    (tmp_path / "kits" / "north" / "site.toml").write_text("sandbox = 'strict'")
    for name in old:
        changes.rotate(tmp_path, name, now=NOW, zips=False)
        assert refusal(tmp_path, old[name]) == "revoked"
        new = identity(tmp_path, name)
        assert (new.generation, server_policy(tmp_path).admit(new).name) == (2, name)
    assert (tmp_path / "kits" / "north" / "site.toml").read_text() == "sandbox = 'strict'"
    assert identity(tmp_path, "admin") == identity(tmp_path, "alice")
    assert [ticket.generation for ticket in load_kit(tmp_path / "kits" / "server").tickets().tickets if ticket.site == "north"] == [
        2
    ]


def test_rotating_the_server_leaves_its_data(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "kits" / "server" / "data").mkdir()
    (tmp_path / "kits" / "server" / "data" / "events.db").write_text("precious")
    key = load_kit(tmp_path / "kits" / "server").private_key()
    changes.rotate(tmp_path, "server", now=NOW, zips=False)
    assert load_kit(tmp_path / "kits" / "server").private_key().private_numbers() != key.private_numbers()
    assert (tmp_path / "kits" / "server" / "data" / "events.db").read_text() == "precious"


def test_a_server_with_another_name_more_gets_a_new_certificate(tmp_path: Path) -> None:
    opened(tmp_path)
    more = msgspec.structs.replace(HEARTS, server=ServerSection(host="localhost", port=8443, addresses=("127.0.0.1", "10.0.0.7")))
    assert [kit.name for kit in opened(tmp_path, more).kits] == ["server"]


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("name", "lungs", "$.name"),
        ("server", ServerSection(host="localhost", port=9000), "$.server"),
        ("server", ServerSection(host="localhost", port=8443, direct=False), "$.server.direct"),
        ("server", ServerSection(host="localhost", port=8443, org="North Hospital"), "$.server.org"),
        ("sites", (Site(name="north", org="Uni"),), None),
        ("people", (*HEARTS.people, Person(name="north", org="Uni", role="lead")), "$.people[2].name"),
        ("organisations", (Organisation(name="Uni"),), "$.sites[0].org"),
    ],
)
def test_what_kits_say_already_cannot_be_changed(tmp_path: Path, field: str, value: object, path: str | None) -> None:
    opened(tmp_path)
    before = everything(tmp_path)
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, msgspec.structs.replace(HEARTS, **{field: value}))
    assert caught.value.path == path
    assert everything(tmp_path) == before


def test_names_that_cannot_be_revoked_or_are_nobodys_are_said(tmp_path: Path) -> None:
    opened(tmp_path)
    for name, said in (("nort", "did you mean 'north'"), ("server", "rotate server"), ("alice", "last project_admin")):
        with pytest.raises(ConfigError, match=said):
            changes.revoke(tmp_path, name=name, now=NOW)
    with pytest.raises(ConfigError, match="did you mean 'bob'"):
        changes.rotate(tmp_path, "bobb", now=NOW)
    with pytest.raises(ConfigError, match="did you mean 'Uni'"):
        changes.add_site(tmp_path, "west", org="Unj", now=NOW)


def test_a_command_cut_off_before_the_roster_was_stored_is_ended_by_the_same_command(tmp_path: Path) -> None:
    opened(tmp_path)
    before = load_roster(tmp_path / "state")
    assert before is not None
    changes.add_site(tmp_path, "west", org="Uni", now=NOW, zips=False)
    save_roster(tmp_path / "state", before)  # the kit is written, the roster is not
    changes.add_site(tmp_path, "west", org="Uni", now=NOW + 5, zips=False)
    assert server_policy(tmp_path).admit(identity(tmp_path, "west")).name == "west"


def test_a_policy_that_was_not_copied_yet_is_written_by_any_next_command(tmp_path: Path) -> None:
    opened(tmp_path)
    old = (tmp_path / "kits" / "server" / "policy.json").read_bytes()
    changes.revoke(tmp_path, name="north", now=NOW)
    (tmp_path / "kits" / "server" / "policy.json").write_bytes(old)
    opened(tmp_path)
    assert server_policy(tmp_path).version == 2


def test_the_same_command_from_two_terminals_is_refused_in_one(tmp_path: Path) -> None:
    opened(tmp_path)
    with (tmp_path / "state" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another `hansa provision`"):
            opened(tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        opened(tmp_path)
    with pytest.raises(InputError, match="not a provisioning folder"):
        changes.revoke(tmp_path, name="north", now=NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("name", "content"), [("ca.key", b""), ("roster.json", b"{"), ("project.key", b"x"), ("ca.pem", None)])
def test_a_damaged_provisioning_folder_is_named_and_never_begun_anew(tmp_path: Path, name: str, content: bytes | None) -> None:
    opened(tmp_path)
    path = tmp_path / "state" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(HansaError, match=r"restore|backup|PEM"):
        opened(tmp_path)
