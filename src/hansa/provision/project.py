"""project.toml: the server's address, organisations, sites, people with roles, and what the project asks of every job."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from cryptography import x509

from hansa.errors import ConfigError
from hansa.registry import nearest
from hansa.runtime.authz.certificates import NAME, pem
from hansa.runtime.authz.policy import Member, Role, Rules
from hansa.runtime.toml import read_toml

E = TypeVar("E")

RESERVED: Final = ("admin", "server")  # folders of kits/
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*")
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
_PEM: Final = "-----BEGIN CERTIFICATE-----"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_LIKE_TEXT = "printable text of at most 63 characters"
_LIKE_A_NAME = "letters, digits and . _ - @, at most 63, beginning with a letter or digit"


class ServerSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[server]: `host` and `port` are the address that sites call; `addresses` are further names and IP addresses of the server.

    `listen` and `listen_port` say where the server itself listens, if that is another address. `direct = false` where a proxy in
    front of the server ends TLS; then `trust` says whose certificate it shows: "project" (the server's kit has it), "system" (of
    any CA that the parties' machines know), or the file of a CA's certificates, which every kit gets: once read, the PEM itself.
    `listen_tls = false`: between such a proxy and the server, on one machine, plain HTTP is spoken. `sandbox` encloses the
    processes that execute jobs' code at the server: "strict" (no network, nothing to see of other runs), "basic" or "off".
    `low_water` is the part of the server's disk that stays free: below it no new work is taken in. `run_memory_mb` and
    `run_file_mb` bound the process of each run (0 MB of memory: three quarters of the machine's). `metrics_port`: where, on
    127.0.0.1 of the server's machine alone, Prometheus reads the numbers of runs and sites by name; 0: nowhere.
    """

    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 8443
    org: str = ""
    addresses: tuple[str, ...] = ()
    listen: str = "0.0.0.0"  # noqa: S104  a server of a federation is for others
    listen_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None
    direct: bool = True
    trust: str = "project"
    listen_tls: bool = True
    sandbox: Literal["strict", "basic", "off"] = "strict"
    low_water: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    run_memory_mb: Annotated[int, msgspec.Meta(ge=0)] = 0
    run_file_mb: Annotated[int, msgspec.Meta(ge=1)] = 65_536
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0

    @property
    def front_ca(self) -> str | None:
        """The CA of the proxy's certificate, as PEM, if it is one of its own."""
        return self.trust if self.trust.startswith(_PEM) else None


class Organisation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[organisations]]"""

    name: str


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[sites]]"""

    name: str
    org: str


class Person(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[people]]"""

    name: str
    org: str
    role: Role


class Project(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """project.toml as it stands. `central_keys`: sites' keys are made here, and not at the site."""

    name: str
    server: ServerSection
    organisations: tuple[Organisation, ...]
    sites: tuple[Site, ...] = ()
    people: tuple[Person, ...] = ()
    policy: Rules = Rules()
    central_keys: bool = False

    @property
    def url(self) -> str:
        """The address that sites call."""
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        return f"https://{host}:{self.server.port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """All names and addresses of the server, each once."""
        return tuple(dict.fromkeys((self.server.host, *self.server.addresses)))

    @property
    def server_org(self) -> str:
        """Whose server it is: the first organisation's, if [server] does not say."""
        return self.server.org or self.organisations[0].name

    def members(self) -> tuple[Member, ...]:
        """The server, the sites, then the people."""
        return (
            Member(name="server", kind="server", org=self.server_org),
            *(Member(name=site.name, kind="site", org=site.org) for site in self.sites),
            *(Member(name=person.name, kind="admin", org=person.org, role=person.role) for person in self.people),
        )


def read_project(path: Path) -> Project:
    """The project file, checked.

    Raises:
        ConfigError: a key is unknown, missing or wrong, a name is used twice, an organisation is not listed, nobody is
            project_admin; with the path of the entry.
    """
    project = read_toml(path, Project)
    if project.server.trust not in ("project", "system"):
        server = msgspec.structs.replace(project.server, trust=_front_ca(project.server.trust, path.parent))
        project = msgspec.structs.replace(project, server=server)
    check(project)
    return project


def to_toml(project: Project) -> str:
    """The project as a project file; what is as it is by default is left out."""
    tables = ["\n".join(_settings(project, "organisations", "sites", "people", "server", "policy"))]
    tables += ["\n".join(["[server]", *_settings(project.server)])]
    for name, entries in (("organisations", project.organisations), ("sites", project.sites), ("people", project.people)):
        tables += ["\n".join([f"[[{name}]]", *_settings(entry)]) for entry in entries]
    if project.policy != Rules():
        tables.append("\n".join(["[policy]", *_settings(project.policy)]))
    return "\n\n".join(tables) + "\n"


def _settings(record: msgspec.Struct, *but: str) -> list[str]:
    """The record's fields as lines of TOML: of printable text, numbers and lists of text, JSON is TOML."""
    fields = [each for each in msgspec.structs.fields(record) if each.name not in but]
    values = {each.name: getattr(record, each.name) for each in fields if each.default != getattr(record, each.name)}
    return [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items() if value is not None]


def _front_ca(trust: str, folder: Path) -> str:
    """The certificates in the file, or in the text itself, as PEM and nothing else."""
    where, expected = "$.server.trust", '"project", "system", or the file of a CA\'s certificates in PEM'
    try:
        content = trust.encode() if trust.startswith(_PEM) else (folder / trust).read_bytes()
        return pem(*x509.load_pem_x509_certificates(content)).decode()
    except OSError as error:
        raise ConfigError(f"no CA can be read: {error.strerror}", path=where, got=trust[:100], expected=expected) from error
    except ValueError as error:
        raise ConfigError("no certificates in PEM", path=where, got=trust[:100], expected=expected) from error


def check(project: Project) -> None:
    """Whether a project can be.

    Raises:
        ConfigError: says why not; `path` is the entry's.
    """
    if not _PROJECT.fullmatch(project.name):
        expected = "letters, digits and . _ -, at most 48, beginning with a letter or digit"
        raise ConfigError("not a name for a project", path="$.name", got=repr(project.name), expected=expected)
    if not project.organisations:
        raise ConfigError("no organisation", path="$.organisations", expected='[[organisations]] with name = "..."')
    for path, host in (("$.server.host", project.server.host), *_indexed("$.server.addresses", project.server.addresses)):
        _check_host(host, path)
    _check_front(project.server)
    _check_names(project)
    known = [organisation.name for organisation in project.organisations]
    parties: list[tuple[str, Site | Person]] = [*_indexed("$.sites", project.sites), *_indexed("$.people", project.people)]
    orgs = [("$.server.org", project.server_org), *((f"{path}.org", party.org) for path, party in parties)]
    for path, org in orgs:
        if org not in known:
            raise ConfigError(f"no organisation is called {org!r}", path=path, hint=nearest(org, known))
    if not any(person.role == "project_admin" for person in project.people):
        raise ConfigError("nobody is project_admin", path="$.people", hint='give one of the [[people]] role = "project_admin"')


def _check_front(server: ServerSection) -> None:
    hint = "with direct = true the parties speak to the server itself, which shows a certificate of the project"
    if server.direct and server.trust != "project":
        raise ConfigError("trust is for a proxy that ends TLS", path="$.server.trust", expected='"project"', hint=hint)
    if server.direct and not server.listen_tls:
        raise ConfigError("plain HTTP is for a proxy that ends TLS", path="$.server.listen_tls", expected="true", hint=hint)
    if not server.listen_tls and server.listen not in _LOOPBACK:
        hint = "or keep TLS between the proxy and the server: listen_tls = true"
        raise ConfigError(
            "plain HTTP stays on one machine", path="$.server.listen", got=server.listen, expected="127.0.0.1", hint=hint
        )


def _check_names(project: Project) -> None:
    taken: dict[str, str] = dict.fromkeys(RESERVED, "the server's or the first administrator's kit")
    tables: dict[str, tuple[Organisation | Site | Person, ...]]
    tables = {"organisations": project.organisations, "sites": project.sites, "people": project.people}
    for table, entries in tables.items():
        names: dict[str, str]
        names = {} if table == "organisations" else taken
        for path, entry in _indexed(f"$.{table}", entries):
            like = _LIKE_TEXT if table == "organisations" else _LIKE_A_NAME
            if not (_is_text(entry.name) if table == "organisations" else NAME.fullmatch(entry.name)):
                raise ConfigError("not a name", path=f"{path}.name", got=repr(entry.name), expected=like)
            folded = entry.name.casefold()  # kits are folders, and some file systems do not tell case apart
            if folded in names:
                raise ConfigError(f"the name {entry.name!r} is taken", path=f"{path}.name", hint=f"it is that of {names[folded]}")
            names[folded] = path


def _is_text(name: str) -> bool:
    return 0 < len(name) < 64 and name.isprintable() and name == name.strip()


def _check_host(host: str, path: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _HOST.fullmatch(host):
            raise ConfigError(
                "not a host", path=path, got=repr(host), expected="a name as fl.example.org, or an IP address; no https://, no port"
            ) from None


def _indexed(path: str, entries: Iterable[E]) -> Iterator[tuple[str, E]]:
    return ((f"{path}[{i}]", entry) for i, entry in enumerate(entries))
