"""The office renews what it made: the server's certificate, its CA for sites, and people's certificates. Keys stay.

Of each, one file is replaced, which is no secret. Sites renew theirs themselves, at the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
from cryptography import x509

from hansa.errors import ConfigError, InputError
from hansa.files import write_atomic
from hansa.provision import ca
from hansa.provision.changes import KITS
from hansa.provision.state import Certificate, Roster, load_roster, office, save_roster
from hansa.registry import nearest
from hansa.runtime import config
from hansa.runtime.authz.certificates import YEAR_DAYS, Identity, identity_of, pem
from hansa.runtime.authz.policy import Member
from hansa.runtime.authz.renewal import DAY_S, RENEW_AT, ends, renew_at

What = Literal["certificate", "site CA", "project CA"]
SERVER: Final = "server"


@dataclass(frozen=True, slots=True)
class Paper:
    """A certificate, until when it is good, and whether it is new. `file` is None where the kit is not in this folder."""

    name: str
    what: What
    until: float
    renewed: bool = False
    due: bool = False
    file: Path | None = None


def renew(folder: Path, *, now: float, names: Sequence[str] = (), every: bool = False) -> tuple[Paper, ...]:
    """All certificates that the office made; those of which two thirds are over are new, as are those of `names`, or `every` one.

    Raises:
        ConfigError: one of `names` is nobody's, or a site's. InputError: nothing was provisioned there, or a kit cannot be read.
    """
    with office(folder) as state:
        roster = load_roster(state)
        if roster is None:  # `office` has looked
            raise ConfigError("not a provisioning folder", path=str(folder))
        keys = ca.load_secrets(state)
        members = [member for member in roster.members if member.kind != "site" and not roster.is_revoked(member.name)]
        _check_names(names, roster, members)
        papers: list[Paper] = []
        for member in members:
            wanted = every or member.name in names
            paper, roster = _member(folder / KITS, state, roster, keys, member, now=now, wanted=wanted)
            papers += [] if paper is None else [paper]
            if member.name == SERVER:
                papers += _site_ca(folder / KITS / SERVER / config.SITE_CA_FILE, keys, roster.project.name, now=now, wanted=wanted)
        root = keys.root.certificate
        return (*papers, Paper("", "project CA", ends([root]), due=now >= renew_at([root])))


def _member(
    kits: Path, state: Path, roster: Roster, keys: ca.Secrets, member: Member, *, now: float, wanted: bool
) -> tuple[Paper | None, Roster]:
    """A member's certificate, and the roster, which knew the new one's number before it was written."""
    path = kits / member.name / config.CERTIFICATE_FILE
    if not path.is_file():
        return _remembered(roster, member, now), roster
    chain = _read(path)
    due = now >= renew_at([*chain, keys.root.certificate])
    if not (due or wanted) or identity_of(chain[0]).generation != member.generation:
        return Paper(member.name, "certificate", ends(chain), due=due, file=path), roster
    who = Identity(name=member.name, kind=member.kind, org=member.org, project=roster.project.name, generation=member.generation)
    hosts = roster.project.hosts if member.kind == "server" else ()
    made = ca.renewed(keys, chain[0], who, now=now, hosts=hosts)
    until, due = ends([made]), now >= renew_at([made, keys.root.certificate])
    noted = Certificate(
        serial=f"{made.serial_number:x}", name=member.name, kind=member.kind, generation=member.generation, until=until
    )
    roster = msgspec.structs.replace(roster, certificates=(*roster.certificates, noted))
    save_roster(state, roster)
    copies = [path] + ([kits / "admin" / config.CERTIFICATE_FILE] if member.name == roster.first_admin else [])
    for copy in copies:
        if copy.parent.is_dir():
            write_atomic(copy, [pem(made)])
    return Paper(
        member.name, "certificate", until, renewed=True, due=now >= renew_at([made, keys.root.certificate]), file=path
    ), roster


def _site_ca(path: Path, keys: ca.Secrets, project: str, *, now: float, wanted: bool) -> list[Paper]:
    if not path.is_file():
        return []
    chain = _read(path)
    due = now >= renew_at([*chain, keys.root.certificate])
    if not (due or wanted):
        return [Paper(SERVER, "site CA", ends(chain), due=due, file=path)]
    made = ca.renewed_site_authority(keys, chain[0], project, now=now)
    write_atomic(path, [pem(made)])
    return [Paper(SERVER, "site CA", ends([made]), renewed=True, due=now >= renew_at([made]), file=path)]


def _remembered(roster: Roster, member: Member, now: float) -> Paper | None:
    """What the roster knows of a kit that is not here any more."""
    own = [each for each in roster.certificates if (each.name, each.generation) == (member.name, member.generation)]
    until = max((each.until for each in own), default=None)
    return None if until is None else Paper(member.name, "certificate", until, due=until - now < YEAR_DAYS * DAY_S * (1 - RENEW_AT))


def _read(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise InputError("not a certificate in PEM", path=str(path), hint="hansa provision rotate makes a new kit") from error


def _check_names(names: Sequence[str], roster: Roster, members: Sequence[Member]) -> None:
    known = [member.name for member in members]
    for name in names:
        if any((member.name, member.kind) == (name, "site") for member in roster.members):
            hint = "its agent renews it; a site whose certificate has ended: hansa provision rotate NAME"
            raise ConfigError(f"{name!r} is a site: it renews its certificate at the server", hint=hint)
        if name not in known:
            raise ConfigError(f"nobody is called {name!r}", hint=nearest(name, known))
