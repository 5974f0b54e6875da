"""A project file of Clara Train or FLARE, with its rights, as a project of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hansa.errors import ConfigError
from hansa.provision.foreign import clara, flare, groups, permissions
from hansa.provision.foreign.draft import Draft
from hansa.provision.foreign.files import Plain, Steps, read
from hansa.provision.foreign.groups import User, Verdict
from hansa.provision.foreign.keys import Keys, Line
from hansa.provision.project import Organisation, Person, Project, ServerSection, Site
from hansa.runtime.authz.policy import Role, Rules

BESIDE: Final = ("authz_config.json", "authorization.json")  # where rights are looked for, beside the project file
SUFFIXES: Final = (".yml", ".yaml")


@dataclass(frozen=True)
class Migrated:
    """What was read: the project, not yet checked; what became of every key; and what each site may want in its site.toml."""

    kind: Literal["Clara Train", "NVIDIA FLARE"]
    project: Project
    lines: tuple[Line, ...]
    notes: Mapping[str, str]


def migrate(path: Path, *, authz: Path | None = None, roles: Mapping[str, Role] | None = None) -> Migrated:
    """The project in another system's file.

    authz: the file with rights; without it, what the project file holds, or one that stands beside it. roles: of people by name;
    they win over what is read.

    Raises:
        ConfigError: a file is malformed (line and column), a key missing or of the wrong kind; somebody in `roles` is not there.
    """
    keys = Keys(read(path))
    kind: Literal["Clara Train", "NVIDIA FLARE"]
    if "participants" in keys.names(()):
        kind, draft = "NVIDIA FLARE", flare.read(keys)
    elif "server" in keys.names(()):
        kind, draft = "Clara Train", clara.read(keys)
    else:
        hint = "Clara Train's has `server` and `fl_clients`, FLARE's `participants`; ours is a .toml"
        raise ConfigError("not a project file of Clara Train or FLARE", path=str(path), hint=hint)
    files = [keys]
    verdict = _weighed(draft, keys, files, _authz_file(path, authz))
    given = dict(roles or {})
    if missing := sorted(set(given) - {party.name for party, _ in draft.people}):
        known = ", ".join(party.name for party, _ in draft.people)
        raise ConfigError(f"nobody is called {missing[0]!r}", path="--role", expected=known)
    people = _people(keys, draft, verdict, given)
    lines = tuple(line for each in files for line in each.lines())
    return Migrated(kind, _project(draft, people), lines, _notes(draft, verdict, files[-1].content.path.name))


def _authz_file(path: Path, given: Path | None) -> Path | None:
    if given is not None:
        return given
    return next((path.with_name(name) for name in BESIDE if path.with_name(name).is_file()), None)


def _weighed(draft: Draft, keys: Keys, files: list[Keys], authz: Path | None) -> Verdict:
    """What the rights come to, wherever they stand; a file is read before what the project file itself holds."""
    people = {party.name: user for party, user in draft.people}
    sites = {party.name: party.org for party in draft.sites}
    if draft.unguarded is not None:
        keys.decide(draft.unguarded, "everybody was allowed everything; here each has a role: give it with --role NAME=ROLE")
    if authz is not None:
        if draft.inline is not None:
            keys.unused(draft.inline, f"{authz.name} was read instead")
        files.append(Keys(read(authz)))
        base: Steps = ()
        at = files[-1]
    elif draft.inline is not None:
        base, at = draft.inline, keys
    else:
        return Verdict(roles=_named_roles({}, people))
    if at.names((*base, "permissions")):
        return Verdict(roles=_named_roles(permissions.compare(at, (*base, "permissions")), people))
    return groups.weigh(at, base, people, sites)


def _named_roles(known: Mapping[str, Role], people: Mapping[str, User]) -> dict[str, tuple[Role, str]]:
    """The roles of people whose files name one: FLARE's four are ours."""
    ours: dict[str, Role] = {name: name for name in ("project_admin", "org_admin", "lead", "member")}
    found: dict[str, tuple[Role, str]] = {}
    for name, user in people.items():
        role = next((each for each in user.roles if each in {**ours, **known}), None)
        if role is not None:
            found[name] = ({**ours, **known}[role], f"was {role}")
        elif groups.SUPER in user.roles:
            found[name] = ("project_admin", f"was {groups.SUPER}")
    return found


def _people(keys: Keys, draft: Draft, verdict: Verdict, given: Mapping[str, Role]) -> list[Person]:
    people = []
    for party, user in draft.people:
        closed: tuple[Role, str] = ("member", f"nothing says what {'+'.join(user.roles) or 'they'} may do")
        role, why = (given[party.name], "--role") if party.name in given else verdict.roles.get(party.name, closed)
        people.append(Person(name=party.name, org=party.org, role=role))
        sure = party.name in given or (party.name in verdict.roles and why != "no role was given")
        ask = "" if sure else f": give another with --role {party.name}=ROLE"
        (keys.became if sure else keys.decide)(party.key, f"a person, role {role} ({why}){ask}")
        for key in ("role", "roles"):
            if keys.at(steps := (*party.key[:-1], key)) is not None:
                keys.became(steps, f"role {role}")
    return people


def _project(draft: Draft, people: list[Person]) -> Project:
    orgs = dict.fromkeys([draft.org, *(site.org for site in draft.sites), *(person.org for person in people)])
    if not 1 <= draft.port <= 65_535:
        raise ConfigError("not a port", path="fed_learn_port", got=draft.port, expected="1 to 65535")
    if draft.least is not None and draft.least < 1:
        raise ConfigError("not a number of sites", path="server.min_num_clients", got=draft.least, expected="1 or more")
    return Project(
        name=draft.name,
        server=ServerSection(host=draft.host, port=draft.port, org=draft.org, addresses=tuple(draft.addresses)),
        organisations=tuple(Organisation(name=name) for name in orgs),
        sites=tuple(Site(name=site.name, org=site.org) for site in draft.sites),
        people=tuple(people),
        policy=Rules() if draft.least is None else Rules(min_cohort=draft.least),
    )


def _notes(draft: Draft, verdict: Verdict, file: str) -> dict[str, str]:
    """What each site's old rights suggest for its own policy: comments, of which nothing holds until the site says so."""
    found = {}
    for site in draft.sites:
        authors: Plain = list(verdict.authors.get(site.name, []))
        lines = [f"# authors = {json.dumps(authors, ensure_ascii=False)}"] if authors else []
        lines += ['# code = "any"'] if verdict.byoc.get(site.name) else []
        if lines:
            head = f"# What {file} permitted here, as a suggestion; it holds when you remove the # and have read what it says:"
            found[site.name] = "\n".join(["", head, *lines, ""])
    return found
