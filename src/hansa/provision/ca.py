"""The office's own secrets, in `state/`: the project CA and the key that signs documents. They leave this folder never."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hansa.errors import InputError
from hansa.files import write_atomic
from hansa.runtime.authz.certificates import (
    BOOTSTRAP_DAYS,
    YEAR_DAYS,
    Authority,
    Identity,
    Kind,
    certify,
    certify_intermediate,
    key_pem,
    make_intermediate,
    make_root,
    new_key,
    pem,
    read_key,
)
from hansa.runtime.authz.policy import Member
from hansa.runtime.authz.renewal import write_secret
from hansa.runtime.authz.signed import new_project_key, public_bytes

_CA, _CA_KEY, _PROJECT_KEY = "ca.pem", "ca.key", "project.key"
_DAYS: Final[dict[Kind, int]] = {"server": YEAR_DAYS, "site": YEAR_DAYS, "admin": YEAR_DAYS, "bootstrap": BOOTSTRAP_DAYS}


@dataclass(frozen=True, slots=True)
class Secrets:
    """The project CA and the key that signs policies and manifests."""

    root: Authority
    project_key: Ed25519PrivateKey = field(repr=False)

    @property
    def project_public(self) -> bytes:
        """The public half of the signing key, raw."""
        return public_bytes(self.project_key)


@dataclass(frozen=True, slots=True)
class Issued:
    """A new key with its certificate, as PEM."""

    key: bytes = field(repr=False)
    certificate: bytes
    serial: str
    until: float


def make_secrets(folder: Path, project: str, *, now: float) -> Secrets:
    """A new project CA and signing key, stored so that nobody else can read them. Those that are there are never overwritten."""
    if (folder / _CA_KEY).exists() and (folder / _PROJECT_KEY).exists() and (folder / _CA).exists():
        return load_secrets(folder)  # made by a run that was cut off before anything was signed
    secrets = Secrets(make_root(project, now=now), new_project_key())
    private = secrets.project_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_secret(folder / _CA_KEY, key_pem(secrets.root.key))
    write_secret(folder / _PROJECT_KEY, private)
    write_atomic(folder / _CA, [pem(secrets.root.certificate)])
    return secrets


def load_secrets(folder: Path) -> Secrets:
    """The secrets that `make_secrets` stored.

    Raises:
        InputError: a file is missing or not what it should be. Without it the project cannot go on: restore the backup.
    """
    hint = "restore the provisioning folder from its backup; without its keys the project must be provisioned anew"
    try:
        certificate = x509.load_pem_x509_certificate((folder / _CA).read_bytes())
        key = read_key((folder / _CA_KEY).read_bytes(), path=str(folder / _CA_KEY))
        signing = serialization.load_pem_private_key((folder / _PROJECT_KEY).read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise InputError(f"the provisioning folder's keys cannot be read: {error}", path=str(folder), hint=hint) from error
    if certificate.public_key() != key.public_key() or not isinstance(signing, Ed25519PrivateKey):
        raise InputError("the provisioning folder's keys do not belong together", path=str(folder), hint=hint)
    return Secrets(Authority(certificate, key), signing)


def issue(
    secrets: Secrets, member: Member, project: str, *, now: float, bootstrap: bool = False, hosts: Sequence[str] = ()
) -> Issued:
    """A new key and its certificate, made by the root: a member's own, or what a site enrols with."""
    kind: Kind = "bootstrap" if bootstrap else member.kind
    identity = Identity(name=member.name, kind=kind, org=member.org, project=project, generation=member.generation)
    key = new_key()
    certificate = certify(key.public_key(), identity, secrets.root, now=now, days=_DAYS[kind], hosts=hosts)
    until = certificate.not_valid_after_utc.timestamp()
    return Issued(key_pem(key), pem(certificate), f"{certificate.serial_number:x}", until)


def renewed(secrets: Secrets, old: x509.Certificate, who: Identity, *, now: float, hosts: Sequence[str] = ()) -> x509.Certificate:
    """A certificate for the key of an old one."""
    return certify(_public_key(old), who, secrets.root, now=now, days=_DAYS[who.kind], hosts=hosts)


def renewed_site_authority(secrets: Secrets, old: x509.Certificate, project: str, *, now: float) -> x509.Certificate:
    """A certificate for the key of the server's CA."""
    return certify_intermediate(_public_key(old), secrets.root, project, now=now)


def _public_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InputError("not a certificate of a project", got=type(key).__name__, hint="hansa provision rotate makes a new kit")
    return key


def site_authority(secrets: Secrets, project: str, *, now: float) -> Authority:
    """A new CA for the server: it makes sites' certificates and nothing else."""
    return make_intermediate(secrets.root, project, now=now)
