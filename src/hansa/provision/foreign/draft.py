"""What a project file of another system asks for, before roles are decided."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Final

from hansa.provision.foreign.files import Steps
from hansa.provision.foreign.groups import User

NO_HE: Final = "no homomorphic encryption is provisioned: do not move jobs that rely on it; updates are encrypted on the way only"
ONE_PORT: Final = "people and sites share one port: close this one in the firewall"


@dataclass(frozen=True)
class Party:
    """A site or a person, and the key that names it."""

    key: Steps
    name: str
    org: str


@dataclass
class Draft:
    """The project. `inline` is where the file holds rights itself, `beside` a file that it names; `unguarded`: who says that
    rights are not checked.
    """

    name: str
    host: str
    port: int
    org: str
    least: int | None = None
    addresses: list[str] = field(default_factory=list)
    sites: list[Party] = field(default_factory=list)
    people: list[tuple[Party, User]] = field(default_factory=list)
    inline: Steps | None = None
    unguarded: Steps | None = None


def host_text(host: str) -> str:
    """What is to be decided of a server's name; nothing if it can be called from elsewhere, or is this machine's own."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if "." not in host and host != "localhost":
            return "server.host: is this the name that every site calls? It must resolve there; else write the full name"
    return ""
