"""authz_config.json of Clara Train and of FLARE 2.0: groups of organisations, in which roles have rights and rules hold.

Whether a user may do something at a site: in any group of the site's organisation, for any role of the user, the right's `_all` is
true; or its `_self`, and the site is of the user's organisation. A user with the role `super` may do everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hansa.provision.foreign.files import Steps
from hansa.provision.foreign.keys import Keys
from hansa.runtime.authz.policy import Role

SUPER: Final = "super"
_RIGHTS: Final = frozenset(
    {"upload_mmar", "upload_app"} | {f"{what}_{who}" for what in ("deploy", "train", "view", "operate") for who in ("self", "all")}
)
_NOTED: Final[Mapping[str, str]] = {
    "upload_mmar": "who may submit is the role's: project_admin and lead",
    "upload_app": "who may submit is the role's: project_admin and lead",
    "view": "every role sees all runs and sites (names and metrics, no results), and nobody a site's files",
}


@dataclass(frozen=True)
class User:
    """A person with their organisation and roles."""

    org: str
    roles: tuple[str, ...] = ()


@dataclass
class Verdict:
    """What the old rights come to: the role of each person, whose jobs each site took, and which took code of their own."""

    roles: dict[str, tuple[Role, str]] = field(default_factory=dict)
    authors: dict[str, list[str]] = field(default_factory=dict)
    byoc: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class _Table:
    """The matrix of rights."""

    rights: Mapping[str, Mapping[str, Mapping[str, bool]]]  # group, role, right
    rules: Mapping[str, Mapping[str, bool]]  # group, rule
    orgs: Mapping[str, list[str]]  # organisation, its groups

    def may(self, user: User, site_org: str, *families: str) -> bool:
        """Whether the user may do all of these at a site of the organisation."""
        held = [self.rights.get(group, {}).get(role, {}) for group in self.orgs.get(site_org, []) for role in user.roles]
        whose = ["all", "self"] if user.org == site_org else ["all"]
        return SUPER in user.roles or all(any(rights.get(f"{what}_{who}") for rights in held for who in whose) for what in families)

    def byoc(self, site_org: str) -> bool:
        """Whether sites of the organisation take an author's own code."""
        return any(self.rules.get(group, {}).get("allow_byoc") for group in self.orgs.get(site_org, []))


def weigh(keys: Keys, base: Steps, people: Mapping[str, User], sites: Mapping[str, str]) -> Verdict:
    """What the rights at `base` come to for these people and sites (site -> organisation), as the project names them.

    Raises:
        ConfigError: a value is of the wrong kind, or an organisation names a group that is not there.
    """
    table = _Table(*_groups(keys, base), {org: _group_names(keys, (*base, "orgs", org)) for org in keys.names((*base, "orgs"))})
    known = _users(keys, (*base, "users"), people)
    _sites(keys, (*base, "sites"), sites)
    work = ("deploy", "train") if _deploys(table) else ("train",)  # older files have no right to deploy
    verdict = Verdict(byoc={site: table.byoc(org) for site, org in sites.items()})
    for name, user in known.items():
        trains = [site for site, org in sites.items() if table.may(user, org, *work)]
        operates = [site for site, org in sites.items() if table.may(user, org, "operate")]
        verdict.roles[name] = _role(user, trains, operates)
        for site in trains:
            verdict.authors.setdefault(site, []).append(name)
    _tell_groups(keys, base, known, verdict)
    return verdict


def _role(user: User, trains: list[str], operates: list[str]) -> tuple[Role, str]:
    """The role that permits no more than the old ones did, together with what sites' own policies say."""
    if not user.roles:
        return "member", "no role was given"
    had = "+".join(user.roles)
    if SUPER in user.roles:
        return "project_admin", f"was {had}"
    if trains:
        return "lead", f"was {had}: trained at {', '.join(trains)}"
    if operates:
        return "org_admin", f"was {had}: operated {', '.join(operates)}; here only sites of the own organisation"
    return "member", f"was {had}, without a right to train or operate"


def _groups(keys: Keys, base: Steps) -> tuple[dict[str, dict[str, dict[str, bool]]], dict[str, dict[str, bool]]]:
    """The rights and the rules of each group."""
    rights: dict[str, dict[str, dict[str, bool]]] = {}
    rules: dict[str, dict[str, bool]] = {}
    for group in keys.names((*base, "groups")):
        steps = (*base, "groups", group)
        rules[group] = {rule: keys.get((*steps, "rules", rule), bool, False) for rule in keys.names((*steps, "rules"))}
        for role in keys.names((*steps, "role_rights")):
            at = (*steps, "role_rights", role)
            found = {right: keys.get((*at, right), bool, False) for right in keys.names(at)}
            rights.setdefault(group, {})[role] = found
    return rights, rules


def _group_names(keys: Keys, steps: Steps) -> list[str]:
    names = [str(each) for each in keys.get(steps, list, [])]
    known = keys.names((*steps[:-2], "groups"))
    if missing := [name for name in names if name not in known]:
        keys.decide(steps, f"there is no group {', '.join(missing)}: nothing of it holds")
    else:
        keys.became(steps, "weighed for its sites and people")
    return [name for name in names if name in known]


def _users(keys: Keys, steps: Steps, people: Mapping[str, User]) -> dict[str, User]:
    """The people of the project with their roles; what the file says of others is told of."""
    found = dict(people)
    for name in keys.names(steps):
        at = (*steps, name)
        roles = tuple(str(role) for role in keys.get((*at, "roles"), list, []))
        org = keys.get((*at, "org"), str, "")
        if name not in people:
            keys.unused(at, "the project file lists no such person: no kit is made")
            continue
        found[name] = User(people[name].org, roles)
        if org and org != people[name].org:
            keys.decide((*at, "org"), f"the project file says {people[name].org}: that holds")
        else:
            keys.became((*at, "org"), "their organisation")
    return found


def _sites(keys: Keys, steps: Steps, sites: Mapping[str, str]) -> None:
    for site in keys.names(steps):
        org = keys.get((*steps, site), str)
        if site == "server":
            keys.unused((*steps, site), "the server runs no work of its own")
        elif site not in sites:
            keys.unused((*steps, site), "the project file lists no such site: no kit is made")
        elif org != sites[site]:
            keys.decide((*steps, site), f"the project file says {sites[site]}: that holds")
        else:
            keys.became((*steps, site), "the site's organisation")


def _deploys(table: _Table) -> bool:
    held = [rights for roles in table.rights.values() for rights in roles.values()]
    return any(f"deploy_{who}" in rights for rights in held for who in ("self", "all"))


def _tell_groups(keys: Keys, base: Steps, users: Mapping[str, User], verdict: Verdict) -> None:
    """Say what became of versions, roles, users, groups and their rights and rules."""
    keys.unused((*base, "version"), "the format's version")
    for name in keys.names((*base, "users")):
        if name in users:
            keys.became((*base, "users", name, "roles"), "role {} ({})".format(*verdict.roles[name]))
    having = {role: [name for name, user in users.items() if role in user.roles] for user in users.values() for role in user.roles}
    for role in keys.names((*base, "roles")):
        text = _of_people(having.get(role, []), verdict)
        (keys.became if role in having else keys.unused)((*base, "roles", role), text)
    for group in keys.names((*base, "groups")):
        steps = (*base, "groups", group)
        keys.unused((*steps, "desc"), "a description")
        for rule in keys.names((*steps, "rules")):
            _tell_rule(keys, (*steps, "rules", rule), verdict)
        for role in keys.names((*steps, "role_rights")):
            if not keys.names((*steps, "role_rights", role)):
                keys.became((*steps, "role_rights", role), _of_people(having.get(role, []), verdict))
            for right in keys.names((*steps, "role_rights", role)):
                _tell_right(keys, (*steps, "role_rights", role, right), having.get(role, []), verdict)


def _tell_rule(keys: Keys, steps: Steps, verdict: Verdict) -> None:
    rule, on = steps[-1], keys.at(steps)
    if rule == "allow_byoc" and on:
        sites = [site for site, byoc in verdict.byoc.items() if byoc]
        keys.became(steps, f'suggested, as a comment, in site.toml of {", ".join(sites) or "no site"}: code = "any"')
    elif rule == "allow_byoc":
        keys.became(steps, "sites are closed until their own site.toml lists the hashes of code that may run")
    elif rule == "allow_custom_datalist":
        keys.unused(steps, "a job names a label of data; the site's own function says which rows that is")


def _tell_right(keys: Keys, steps: Steps, names: Iterable[str], verdict: Verdict) -> None:
    right = str(steps[-1])
    note = _NOTED.get(right) or _NOTED.get(right.partition("_")[0])
    if right not in _RIGHTS:
        return  # stays unknown
    if note:
        keys.unused(steps, note)
    else:
        keys.became(steps, f"weighed: {_of_people(names, verdict)}")


def _of_people(names: Iterable[str], verdict: Verdict) -> str:
    return ", ".join(f"{name} is {verdict.roles[name][0]}" for name in names) or "nobody has this role"
