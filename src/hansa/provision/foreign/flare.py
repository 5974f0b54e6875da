"""project.yml of NVIDIA FLARE 2.0 and later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hansa.errors import ConfigError
from hansa.provision.foreign.draft import NO_HE, ONE_PORT, Draft, Party, host_text
from hansa.provision.foreign.files import Steps
from hansa.provision.foreign.groups import User
from hansa.provision.foreign.keys import Keys

VERSIONS: Final = (2, 3, 4)
_BUILDERS: Final = {  # by class: paths differ between versions
    "WorkspaceBuilder": "kits are one folder a party: nothing to build",
    "TemplateBuilder": "kits have no templates",
    "StaticFileBuilder": "kits hold no scripts; services are systemd units (see the deployment guide)",
    "CertBuilder": "certificates are made anew, by a CA of this project: old kits do not connect",
    "SignatureBuilder": "every kit has a signed manifest",
    "DistributionBuilder": "every kit is an AES zip with a password of its own",
    "DockerBuilder": "no container images are made",
    "HelmChartBuilder": "no Helm charts are made",
    "HEBuilder": NO_HE,
}
_SERVER: Final = {
    "admin_port": ONE_PORT,
    "enable_byoc": "the server runs a job's workflow in a process of its own",
    "use_aio": "there is one transport: HTTPS",
    "scheme": "there is one transport: HTTPS",
    "allow_error_sending": "traceback in each site.toml says whether authors see where their code failed",
}
_CLIENT: Final = {
    "enable_byoc": "which code runs, the site says: code in its site.toml",
    "components": "a site's resources stand in its site.toml",
    "capacity": "a site's cores, GPUs and memory stand in its site.toml: [resources]",
    "listening_host": "sites listen at nothing",
    "allow_error_sending": "traceback in site.toml says whether authors see where their code failed",
}
_TOP: Final = {
    "description": "a description",
    "packager": "kits are packed as folders and AES zips",
    "connection_security": "mutual TLS is always on; [server] direct = false where a proxy ends TLS",
    "allow_error_sending": "traceback in each site.toml says whether authors see where their code failed",
}


def read(keys: Keys) -> Draft:
    """What the file asks for; each key is told of.

    Raises:
        ConfigError: a key is missing or of the wrong kind, with its line; no server is listed.
    """
    rows: dict[str, list[Steps]] = {}
    for steps in keys.rows(("participants",)):
        rows.setdefault(keys.get((*steps, "type"), str), []).append(steps)
    if not rows.get("server"):
        raise ConfigError("no participant is a server", path=f"{keys.content.path.name} participants", expected="type: server")
    draft = _server(keys, rows.pop("server"))
    for steps in rows.pop("client", []):
        draft.sites.append(_party(keys, steps, "a site", _CLIENT))
    for steps in rows.pop("admin", []):
        party = _party(keys, steps, "a person", {})
        roles = [str(each) for each in keys.get((*steps, "roles"), list, [])] or [keys.get((*steps, "role"), str, "")]
        draft.people.append((party, User(party.org, tuple(filter(None, roles)))))
    for kind, others in rows.items():
        for steps in others:
            why = "no overseer is needed: one server, which goes on where it was" if kind == "overseer" else ""
            (keys.unused if why else keys.decide)(steps, why or f"there is no participant of type {kind!r} here")
    _top(keys, draft)
    return draft


def _top(keys: Keys, draft: Draft) -> None:
    version = keys.get(("api_version",), int, 2)
    if version in VERSIONS:
        keys.became(("api_version",), "read as this version's format")
    else:
        keys.decide(("api_version",), f"read as {VERSIONS[-1]}: look at every line of this table")
    keys.became(("name",), "name")
    for name, why in _TOP.items():
        keys.unused((name,), why)
    for steps in keys.rows(("builders",)):
        kind = keys.get((*steps, "path"), str).rpartition(".")[2]
        if kind == "AuthPolicyBuilder":
            keys.became((*steps, "path"), "the rights below are weighed")
            _rights(keys, (*steps, "args"), draft)
        elif kind in _BUILDERS:
            keys.unused(steps, _BUILDERS[kind])
        else:
            keys.decide(steps, f"a builder that is not known here ({kind}): what did it add?")


def _rights(keys: Keys, steps: Steps, draft: Draft) -> None:
    draft.inline = steps
    if keys.get((*steps, "disabled"), bool, False):
        draft.unguarded, draft.inline = (*steps, "disabled"), None
    else:
        keys.became((*steps, "disabled"), "rights are always checked")


def _server(keys: Keys, rows: list[Steps]) -> Draft:
    steps, *more = rows
    name = keys.get((*steps, "name"), str)
    host = keys.get((*steps, "default_host"), str, name)
    others = [str(each) for each in keys.get((*steps, "host_names"), list, [])]
    draft = Draft(
        name=keys.get(("name",), str),
        host=host,
        port=keys.get((*steps, "fed_learn_port"), int, 8002),
        org=keys.get((*steps, "org"), str),
        addresses=[each for each in dict.fromkeys(others) if each != host],
    )
    named = host == name
    text = host_text(host)
    tell: Callable[[Steps, str], None] = keys.decide if text else keys.became
    tell((*steps, "name" if named else "default_host"), text or "server.host")
    if not named:
        keys.unused((*steps, "name"), "sites call the default_host")
    keys.became((*steps, "type"), "[server]")
    keys.became((*steps, "org"), "server.org")
    keys.became((*steps, "fed_learn_port"), "server.port: the one port, for sites and people")
    keys.became((*steps, "host_names"), "server.addresses")
    for key, why in _SERVER.items():
        keys.unused((*steps, key), why)
    for other in more:
        keys.decide(other, "there is one server: sites call the first one listed")
    return draft


def _party(keys: Keys, steps: Steps, what: str, unused: dict[str, str]) -> Party:
    name, org = keys.get((*steps, "name"), str), keys.get((*steps, "org"), str)
    keys.became((*steps, "name"), what)
    keys.became((*steps, "type"), what)
    keys.became((*steps, "org"), "their organisation")
    for key, why in unused.items():
        keys.unused((*steps, key), why)
    return Party((*steps, "name"), name, org)
