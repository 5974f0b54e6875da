"""What an administrator does: provision a project, add a site or a person, revoke, rotate. Each may be repeated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from hansa.errors import ConfigError
from hansa.provision import ca, kits
from hansa.provision.project import Person, Project, Site, check
from hansa.provision.state import Roster, load_roster, office, save_roster
from hansa.registry import nearest
from hansa.runtime.authz.policy import Member, Revoked, Role
from hansa.runtime.authz.signed import fingerprint

KITS: Final = "kits"
ZIPS: Final = "zips"


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it: the version of the policy, the kits that were written, and whether anything was to do.

    `fingerprint` is the project key's: parties compare it on the telephone.
    """

    project: str
    folder: Path
    version: int
    fingerprint: str
    kits: tuple[kits.Made, ...] = ()
    changed: bool = True


@dataclass(frozen=True, slots=True)
class _Office:
    """The office at work: where it is, its secrets, and how kits are made."""

    folder: Path
    state: Path
    keys: ca.Secrets
    now: float
    central_keys: bool = False
    zips: bool = True
    notes: Mapping[str, str] = field(default_factory=dict)


def provision(
    project: Project,
    out: Path,
    *,
    now: float,
    central_keys: bool = False,
    zips: bool = True,
    notes: Mapping[str, str] | None = None,
) -> Done:
    """Kits for everybody in the project who has none yet, and a policy that says what the project says.

    notes: for sites by name, comments at the end of their site.toml.

    Raises:
        ConfigError: the project contradicts what was handed out: another name or address; a member moved to another organisation.
        InputError: `out` holds something else.
    """
    check(project)
    if out.is_dir() and not (out / "state").is_dir() and any(out.iterdir()):
        raise ConfigError(
            "the folder is not empty, and no provisioning folder", path=str(out), hint="name a new folder, or one that hansa made"
        )
    with office(out, new=True) as state:
        roster = load_roster(state)
        keys = ca.load_secrets(state) if roster else ca.make_secrets(state, project.name, now=now)
        desk = _Office(out, state, keys, now, central_keys or project.central_keys, zips, notes or {})
        if roster is None:
            empty = Roster(project=project, version=0, issued=now, members=())
            return _commit(desk, empty, members=project.members(), fresh=[member.name for member in project.members()])
        return _update(desk, roster, project)


def add_site(folder: Path, name: str, *, org: str, now: float, central_keys: bool = False, zips: bool = True) -> Done:
    """A kit for a new site, and a policy that knows it; nothing if it is known already.

    Raises:
        ConfigError: the name is taken or revoked, or the organisation is not known.
    """
    return _add(folder, Site(name=name, org=org), now=now, central_keys=central_keys, zips=zips)


def add_user(folder: Path, name: str, *, org: str, role: Role, now: float, zips: bool = True) -> Done:
    """A kit for a person, and a policy that knows them; a known person gets the role.

    Raises:
        ConfigError: the name is taken or revoked, or the organisation is not known.
    """
    return _add(folder, Person(name=name, org=org, role=role), now=now, central_keys=False, zips=zips)


def revoke(folder: Path, *, name: str = "", serial: str = "", reason: str = "", now: float) -> Done:
    """A policy in which the name, or one certificate by its serial number, is no longer good. For good: a name never comes back.

    Raises:
        ConfigError: nobody has the name; it is the server's or the last administrator's.
    """
    with office(folder) as state:
        desk, roster = _open(folder, state, now)
        if name:
            _check_revocable(roster, name)
        elif not serial or set(serial.lower()) - set("0123456789abcdef"):
            raise ConfigError("not a serial number", got=repr(serial), expected="hexadecimal digits, as logs print them")
        serial = serial.lower().lstrip("0")
        if any((entry.name, entry.serial) == (name, serial) for entry in roster.revoked):
            return _commit(desk, roster)
        entry = Revoked(name=name, serial=serial, at=now, reason=reason)
        tickets = tuple(ticket for ticket in roster.tickets if ticket.site != name)
        return _commit(desk, msgspec.structs.replace(roster, tickets=tickets), revoked=(*roster.revoked, entry))


def rotate(folder: Path, name: str, *, now: float, central_keys: bool = False, zips: bool = True) -> Done:
    """A new kit for the name; all its certificates until now are revoked.

    Raises:
        ConfigError: nobody has the name, or it is revoked.
    """
    with office(folder) as state:
        desk, roster = _open(folder, state, now, central_keys=central_keys, zips=zips)
        member = _member(roster, name)
        if roster.is_revoked(name):
            raise ConfigError(f"{name!r} is revoked for good", hint="add the party under another name")
        newer = msgspec.structs.replace(member, generation=member.generation + 1)
        members = [newer if each is member else each for each in roster.members]
        return _commit(desk, roster, members=members, fresh=[name])


def _add(folder: Path, party: Site | Person, *, now: float, central_keys: bool, zips: bool) -> Done:
    with office(folder) as state:
        desk, roster = _open(folder, state, now, central_keys=central_keys or _central(state), zips=zips)
        if roster.is_revoked(party.name):
            raise ConfigError(f"{party.name!r} is revoked for good", hint="add the party under another name")
        project, table = roster.project, "sites" if isinstance(party, Site) else "people"
        others = tuple(each for each in getattr(project, table) if each.name != party.name)
        return _update(desk, roster, msgspec.structs.replace(project, **{table: (*others, party)}))


def _update(desk: _Office, roster: Roster, project: Project) -> Done:
    """Bring the roster to what the project says. Members that it does not list, added by command, stay."""
    project = _with_added(project, roster.project)
    check(project)
    _check_same(roster.project, project)
    known = {member.name: member for member in roster.members}
    members, fresh = dict(known), []
    for wanted in project.members():
        member = known.get(wanted.name)
        if roster.is_revoked(wanted.name):
            if member is not None and (member.kind, member.org, member.role) == (wanted.kind, wanted.org, wanted.role):
                continue  # revoked after it was listed: the file need not change
            raise ConfigError(f"{wanted.name!r} is revoked for good", hint="add the party under another name")
        if member is None:
            fresh.append(wanted.name)
        elif (member.kind, member.org) != (wanted.kind, wanted.org):
            found = f"{member.kind} of {member.org}"
            hint = "its certificate says so: revoke it, and add the party under another name"
            raise ConfigError(
                f"{wanted.name!r} is provisioned as something else", expected=found, got=f"{wanted.kind} of {wanted.org}", hint=hint
            )
        members[wanted.name] = wanted if member is None else msgspec.structs.replace(member, role=wanted.role)
    if project.server != roster.project.server:
        fresh.append("server")
    return _commit(desk, msgspec.structs.replace(roster, project=project), was=roster, members=members.values(), fresh=fresh)


def _commit(
    desk: _Office,
    roster: Roster,
    *,
    was: Roster | None = None,
    members: Iterable[Member] | None = None,
    revoked: tuple[Revoked, ...] | None = None,
    fresh: Sequence[str] = (),
) -> Done:
    """Write the kits, then the roster, then the server's policy: cut off anywhere, the same command again ends it."""
    after = msgspec.structs.replace(
        roster,
        members=roster.members if members is None else tuple(members),
        revoked=roster.revoked if revoked is None else revoked,
    )
    changed = after != (was or roster) or bool(fresh) or roster.version == 0
    if changed:
        after = msgspec.structs.replace(after, version=roster.version + 1, issued=desk.now)
    made = []
    for name in sorted(fresh, key=lambda name: name == "server"):  # last: its kit holds the tickets of all others
        kit, after = _make_kit(desk, after, name)
        made.append(kit)
    if changed:
        save_roster(desk.state, after)
    kits.write_public(desk.folder / KITS / "server", after.policy, after.tickets, desk.keys)
    shown = fingerprint(desk.keys.project_public)
    return Done(after.project.name, desk.folder, after.version, shown, tuple(made), changed)


def _make_kit(desk: _Office, roster: Roster, name: str) -> tuple[kits.Made, Roster]:
    member = _member(roster, name)
    keys, policy, central = desk.keys, roster.policy, desk.central_keys
    note, tickets = desk.notes.get(name, ""), roster.tickets
    content = kits.compose(member, roster.project, keys, policy, now=desk.now, central_keys=central, tickets=tickets, note=note)
    folder = desk.folder / KITS / name
    kits.write(folder, content)
    if name == roster.first_admin:
        kits.write(desk.folder / KITS / "admin", content)
    path = desk.folder / ZIPS / f"{name}.zip" if desk.zips else None
    password = None if path is None else kits.pack(path, name, content)
    tickets = tuple(ticket for ticket in roster.tickets if ticket.site != name) + ((content.ticket,) if content.ticket else ())
    remembered = msgspec.structs.replace(roster, tickets=tickets, certificates=(*roster.certificates, *content.certificates))
    return kits.Made(name, member.kind, folder, path, password), remembered


def _open(folder: Path, state: Path, now: float, *, central_keys: bool = False, zips: bool = True) -> tuple[_Office, Roster]:
    roster = load_roster(state)
    if roster is None:  # `office` has looked
        raise ConfigError("not a provisioning folder", path=str(folder))
    return _Office(folder, state, ca.load_secrets(state), now, central_keys, zips), roster


def _central(state: Path) -> bool:
    roster = load_roster(state)
    return roster is not None and roster.project.central_keys


def _member(roster: Roster, name: str) -> Member:
    names = [member.name for member in roster.members]
    if name not in names:
        raise ConfigError(f"nobody is called {name!r}", hint=nearest(name, names))
    return roster.members[names.index(name)]


def _check_revocable(roster: Roster, name: str) -> None:
    member = _member(roster, name)
    if member.kind == "server":
        raise ConfigError("the server cannot be revoked", hint="hansa provision rotate server gives it new keys")
    left = [m.name for m in roster.members if m.role == "project_admin" and m.name != name and not roster.is_revoked(m.name)]
    if member.role == "project_admin" and not left:
        raise ConfigError("the last project_admin cannot be revoked", hint="add another one first: hansa provision add-user")


def _with_added(project: Project, before: Project) -> Project:
    """The project with those sites and people of before that it does not list."""
    listed = {member.name for member in project.members()}
    sites = tuple(each for each in before.sites if each.name not in listed)
    people = tuple(each for each in before.people if each.name not in listed)
    return msgspec.structs.replace(project, sites=(*project.sites, *sites), people=(*project.people, *people))


def _check_same(before: Project, project: Project) -> None:
    hint = "kits that were handed out say so: provision a new folder, with new kits for everybody"
    facts: dict[str, tuple[object, object]] = {"$.name": (before.name, project.name), "$.server": (before.url, project.url)}
    facts |= {
        "$.server.direct": (before.server.direct, project.server.direct),
        "$.server.org": (before.server_org, project.server_org),
    }
    for path, (old, new) in facts.items():
        if old != new:
            raise ConfigError("cannot be changed in a project that stands", path=path, expected=old, got=new, hint=hint)
