"""project.yml of Clara Train 3.1 to 4.1."""

from __future__ import annotations

from typing import Final

from hansa.provision.foreign.draft import NO_HE, ONE_PORT, Draft, Party, host_text
from hansa.provision.foreign.groups import User
from hansa.provision.foreign.keys import Keys

_SERVER: Final = {
    "admin_port": ONE_PORT,
    "admin_storage": "jobs are uploaded as signed bundles, which the server keeps in its data folder",
    "enable_byoc": "the server runs a job's workflow in a process of its own",
}


def read(keys: Keys) -> Draft:
    """What the file asks for; each key is told of.

    Raises:
        ConfigError: a key is missing or of the wrong kind, with its line.
    """
    draft = Draft(
        name=keys.get(("name",), str),
        host=keys.get(("server", "cn"), str),
        port=keys.get(("server", "fed_learn_port"), int, 8002),
        org=keys.get(("server", "org"), str),
        least=keys.get(("server", "min_num_clients"), int, 0) or None,
    )
    keys.became(("name",), "name")
    keys.unused(("config_folder",), "a job is one Python or TOML file, and names what it needs")
    keys.unused(("he",), NO_HE)
    _server(keys, draft)
    for steps in keys.rows(("fl_clients",)):
        draft.sites.append(Party(steps, keys.get((*steps, "client_name"), str), keys.get((*steps, "org"), str)))
        keys.became((*steps, "client_name"), "a site")
        keys.became((*steps, "org"), "its organisation")
        keys.unused((*steps, "enable_byoc"), "which code runs, the site says: code in its site.toml")
    for steps in keys.rows(("admin_clients",)):
        name, org = keys.get((*steps, "email"), str), keys.get((*steps, "org"), str)
        draft.people.append((Party((*steps, "email"), name, org), User(org)))
        keys.became((*steps, "org"), "their organisation")
    _count(keys, draft)
    if keys.at(("authz_policy",)) is not None:
        draft.inline = ("authz_policy",)
    return draft


def _server(keys: Keys, draft: Draft) -> None:
    keys.became(("server", "org"), "server.org")
    keys.became(("server", "fed_learn_port"), "server.port: the one port, for sites and people")
    (keys.decide if (text := host_text(draft.host)) else keys.became)(("server", "cn"), text or "server.host")
    for name, why in _SERVER.items():
        keys.unused(("server", name), why)
    if draft.least is not None:
        keys.became(("server", "min_num_clients"), f"policy.min_cohort = {draft.least}: no job with fewer sites")
    if keys.get(("server", "auth"), bool, True):
        keys.became(("server", "auth"), "rights are always checked")
    else:
        draft.unguarded = ("server", "auth")


def _count(keys: Keys, draft: Draft) -> None:
    most = keys.get(("server", "max_num_clients"), int, 0)
    if most and len(draft.sites) > most:
        keys.decide(("server", "max_num_clients"), f"{len(draft.sites)} sites are listed: all get kits")
    else:
        keys.unused(("server", "max_num_clients"), "who is in the roster may come; nobody else")
