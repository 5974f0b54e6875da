"""A project of one site, made once: its CA, the site's certificates, and a clock that stands still."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.runtime.authz.certificates import Authority, Identity, certify, make_intermediate, make_root, new_key
from hansa.runtime.authz.policy import Member, Policy

NOW = 1_700_000_000.0
DAY = 86_400.0
NORTH = Identity(name="north", kind="site", org="North Hospital", project="hearts")
BOOTSTRAP = replace(NORTH, kind="bootstrap")
ALICE = Identity(name="alice", kind="admin", org="Uni", project="hearts")
SERVER = Identity(name="server", kind="server", org="Uni", project="hearts")
POLICY = Policy(
    project="hearts",
    version=3,
    issued=NOW,
    members=(
        Member(name="server", kind="server", org="Uni"),
        Member(name="north", kind="site", org="North Hospital"),
        Member(name="alice", kind="admin", org="Uni", role="project_admin"),
    ),
)


@dataclass(frozen=True)
class Pki:
    """A root and the site CA below it."""

    root: Authority
    sites: Authority

    def issue(
        self, identity: Identity, *, by: Authority | None = None, now: float = NOW, days: float = 90
    ) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        """A key and its certificate, by the root unless said."""
        key = new_key()
        hosts = ("localhost", "127.0.0.1") if identity.kind == "server" else ()
        return key, certify(key.public_key(), identity, by or self.root, now=now, days=days, hosts=hosts)


def make_pki(*, now: float = NOW) -> Pki:
    """A new project CA."""
    root = make_root("hearts", now=now)
    return Pki(root, make_intermediate(root, "hearts", now=now))


@functools.cache
def pki() -> Pki:
    """The project CA that tests share."""
    return make_pki()
