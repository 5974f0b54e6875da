"""X.509 of a project: how certificates are made, whom one names, and which fault it has.

    project CA (root, at most 5 years, key offline)
    ├── server   serverAuth
    ├── admin    clientAuth    a person; only the root makes these, so that a server cannot invent an author
    ├── bootstrap              one day, good for /enroll only
    └── site CA (intermediate, at the server) ── site   clientAuth; the root may make these too

Whom a certificate names stands in its URI: `hansa://PROJECT/KIND/NAME/GENERATION`. A revoked generation is refused by the roster.
"""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast, get_args
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hansa.errors import IdentityError, InputError

Kind = Literal["server", "site", "admin", "bootstrap"]

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
ROOT_DAYS: Final = 5 * 365
YEAR_DAYS: Final = 365
SITE_DAYS: Final = 90  # renewed by the agent when a third is left: a site may be offline for a month
BOOTSTRAP_DAYS: Final = 1
SKEW_S: Final = 300.0  # certificates are dated back by this much, for clocks that are late
_CERTIFICATE_LIMIT: Final = 8 * 1024  # bytes; ours have about 700
_BOOTSTRAP_USE: Final = x509.ObjectIdentifier("2.25.212174529012395702154178398120951203573")  # X.667: an OID anybody may make
_USES: Final[dict[str, list[x509.ObjectIdentifier]]] = {
    "server": [ExtendedKeyUsageOID.SERVER_AUTH],
    "site": [ExtendedKeyUsageOID.CLIENT_AUTH],
    "admin": [ExtendedKeyUsageOID.CLIENT_AUTH],
    "bootstrap": [ExtendedKeyUsageOID.CLIENT_AUTH, _BOOTSTRAP_USE],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom a certificate names. `serial` is its number in hexadecimal; "" for one that is not made yet."""

    name: str
    kind: Kind
    org: str
    project: str
    serial: str = ""
    generation: int = 1

    @property
    def uri(self) -> str:
        """The name of the certificate."""
        return f"hansa://{self.project}/{self.kind}/{quote(self.name, safe='@')}/{self.generation}"


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate and its key. `chain` is what its certificates are sent with: nothing for the root."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The intermediates between a certificate it made and the root."""
        return () if self.certificate.issuer == self.certificate.subject else (self.certificate,)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as PEM, unencrypted: for a file that nobody else can read."""
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def read_key(pem: bytes, *, path: str | None = None) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in a PEM.

    Raises:
        InputError: it holds no such key, or one that needs a passphrase.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:  # TypeError: encrypted
        raise InputError("no private key in PEM without a passphrase", path=path, hint="a kit's key is P-256, PKCS #8") from error
    if not _is_p256(key):
        raise InputError("not a P-256 key", path=path, got=type(key).__name__, hint="keys of a project are P-256")
    return cast("ec.EllipticCurvePrivateKey", key)


def pem(*certificates: x509.Certificate) -> bytes:
    """The certificates as PEM, one after the other."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def der(*certificates: x509.Certificate) -> tuple[bytes, ...]:
    """The certificates as DER, as a proof carries them."""
    return tuple(each.public_bytes(serialization.Encoding.DER) for each in certificates)


def make_root(project: str, *, now: float, days: int = ROOT_DAYS) -> Authority:
    """A new project CA, signed by itself. It may have one intermediate below it."""
    if not 0 < days <= ROOT_DAYS:
        raise InputError("a project CA lives at most five years", got=f"{days} days")
    key = new_key()
    name = _subject(f"{project} CA", project, "ca")
    builder = _authority_builder(name, name, key.public_key(), depth=1, now=now, until=now + days * 86_400.0)
    return Authority(builder.add_extension(_key_id(key), critical=False).sign(key, hashes.SHA256()), key)


def make_intermediate(root: Authority, project: str, *, now: float, days: int = YEAR_DAYS) -> Authority:
    """A new CA below the root, for the server: it makes sites' certificates and nothing else."""
    key = new_key()
    return Authority(certify_intermediate(key.public_key(), root, project, now=now, days=days), key)


def certify_intermediate(
    key: ec.EllipticCurvePublicKey, root: Authority, project: str, *, now: float, days: int = YEAR_DAYS
) -> x509.Certificate:
    """A certificate for the key of the server's CA."""
    name = _subject(f"{project} site CA", project, "site-ca")
    until = min(now + days * 86_400.0, root.certificate.not_valid_after_utc.timestamp())
    builder = _authority_builder(name, root.certificate.subject, key, depth=0, now=now, until=until)
    return builder.add_extension(_key_id(root.key), critical=False).sign(root.key, hashes.SHA256())


def certify(
    public_key: ec.EllipticCurvePublicKey,
    identity: Identity,
    authority: Authority,
    *,
    now: float,
    days: float,
    hosts: Sequence[str] = (),
) -> x509.Certificate:
    """A certificate for the key. It names `identity`, begins `SKEW_S` early, and never outlives its CA. `hosts` is for servers."""
    until = min(now + days * 86_400.0, authority.certificate.not_valid_after_utc.timestamp())
    names: list[x509.GeneralName] = [_host(host) for host in hosts]
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(identity.name, identity.org, identity.kind))
        .issuer_name(authority.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_date(now - SKEW_S))
        .not_valid_after(_date(until))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USES[identity.kind]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([*names, x509.UniformResourceIdentifier(identity.uri)]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_key_id(authority.key), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    """A certificate signing request for the key, as PEM. Only its key counts; the CA knows the rest."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def requested_key(csr: str) -> ec.EllipticCurvePublicKey:
    """The key in a signing request, whose sender has shown that the key is theirs.

    Raises:
        IdentityError: `bad_request`: no request, not P-256, or not signed by its own key.
    """
    hint = "make it anew: hansa site enroll KIT"
    if len(csr) > _CERTIFICATE_LIMIT:
        raise IdentityError("bad_request", "the signing request is too long", got=f"{len(csr):,} bytes", hint=hint)
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        key = request.public_key()
    except (ValueError, x509.InvalidVersion) as error:
        raise IdentityError("bad_request", "not a certificate signing request", hint=hint) from error
    if not _is_p256(key) or not request.is_signature_valid:
        raise IdentityError("bad_request", "not a P-256 key with its own signature", hint=hint)
    return cast("ec.EllipticCurvePublicKey", key)


def key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """The SHA-256 of a public key, in hexadecimal."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def check_chain(chain: Sequence[bytes], ca: x509.Certificate, *, now: float, name: str | None = None) -> Identity:
    """Whom the chain (DER, leaf first, without the root) names, if the project's `ca` stands behind it at the time `now`.

    Raises:
        IdentityError: `no_certificate`, `bad_certificate`, `wrong_ca`, `expired`, `not_yet_valid`, `wrong_kind`, or `wrong_name`
            where `name` is given and the certificate is another's. Whether it is revoked, the roster says (Policy.admit).
    """
    certificates = _parse(chain)
    leaf, *between = certificates
    _check_dates_and_issuer(leaf, between, ca, now)
    identity = identity_of(leaf)
    if between and identity.kind != "site":  # see the picture at the top
        raise IdentityError("wrong_kind", f"the site CA may not make a certificate of kind {identity.kind!r}", got=identity.name)
    if name is not None and identity.name != name:
        hint = "use the kit that was made for this name"
        raise IdentityError("wrong_name", "the certificate is another's", expected=name, got=identity.name, hint=hint)
    return identity


def identity_of(certificate: x509.Certificate) -> Identity:
    """Whom a certificate says that it names: believe it only after `check_chain`.

    Raises:
        IdentityError: `bad_certificate`: it is not one of this system.
    """
    try:
        extensions = certificate.extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uses = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        (org,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise IdentityError("bad_certificate", "not a certificate of a Hansa project", hint="use the kit's own files") from error
    scheme, _, rest = uri.partition("://")
    parts = [unquote(part) for part in rest.split("/")]
    if scheme != "hansa" or len(parts) != 4 or parts[1] not in get_args(Kind) or not parts[3].isdecimal():
        raise IdentityError("bad_certificate", "the certificate's name cannot be read", got=uri, hint="use the kit's own files")
    project, kind, name, generation = parts
    if uses != set(_USES[kind]) or not NAME.fullmatch(name):
        raise IdentityError("bad_certificate", f"not made for the uses of kind {kind!r}", got=name, hint="use the kit's own files")
    return Identity(
        name=name,
        kind=cast("Kind", kind),
        org=str(org.value),
        project=project,
        serial=f"{certificate.serial_number:x}",
        generation=int(generation),
    )


def _parse(chain: Sequence[bytes]) -> list[x509.Certificate]:
    if not chain:
        raise IdentityError("no_certificate", "no certificate was sent", hint="start from a kit: hansa site start KIT")
    if len(chain) > 2 or max(map(len, chain)) > _CERTIFICATE_LIMIT:
        raise IdentityError(
            "bad_certificate", "the certificate chain is too long", hint="send the leaf and the site CA, not the root"
        )
    try:
        certificates = [x509.load_der_x509_certificate(each) for each in chain]
        fine = all(_is_p256(each.public_key()) for each in certificates)
    except ValueError as error:
        raise IdentityError("bad_certificate", "not a certificate", hint="use the kit's own files") from error
    if not fine:
        raise IdentityError("bad_certificate", "not a P-256 key", hint="use the kit's own files")
    return certificates


def _check_dates_and_issuer(leaf: x509.Certificate, between: list[x509.Certificate], ca: x509.Certificate, now: float) -> None:
    path = [leaf, *between, ca]
    begins = max(each.not_valid_before_utc.timestamp() for each in path)
    ends = min(each.not_valid_after_utc.timestamp() for each in path)
    # The chain is checked at a time when all of it is valid, if need be another than now: so that what is only out of date is not
    # called a stranger's.
    at = min(max(now, begins), ends)
    builder = verification.PolicyBuilder().store(verification.Store([ca])).time(_date(at)).max_chain_depth(1)
    try:
        builder.build_client_verifier().verify(leaf, between)
    except verification.VerificationError as error:
        _refuse(path, error, dated=begins > ends)
    if now < begins:
        hint = f"its clock or yours is off by {_span(begins - now)} or more: set both by NTP"
        raise IdentityError(
            "not_yet_valid", "the certificate is not valid yet", got=_text(now), expected=f"from {_text(begins)}", hint=hint
        )
    if now > ends:
        hint = "ask the project's administrator for a new kit: hansa provision rotate NAME"
        raise IdentityError("expired", "the certificate has expired", got=_text(now), expected=f"until {_text(ends)}", hint=hint)


def _refuse(path: list[x509.Certificate], error: verification.VerificationError, *, dated: bool) -> None:
    """The chain does not hold: because another CA signed it, or because of what it says, unless it is `dated`: valid at no time."""
    try:
        for lower, upper in itertools.pairwise(path):
            lower.verify_directly_issued_by(upper)
    except (ValueError, TypeError, InvalidSignature):
        hint = "the kit belongs to another project, or the project's CA was made anew: ask its administrator for a new kit"
        raise IdentityError("wrong_ca", "the certificate was not made by this project's CA", hint=hint) from error
    if not dated:
        hint = "use the kit's own files"
        raise IdentityError("bad_certificate", f"the certificate may not be used so: {error}", hint=hint) from error


def _authority_builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, depth: int, now: float, until: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_date(now - SKEW_S))
        .not_valid_after(_date(until))
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_id(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _subject(name: str, org: str, unit: str) -> x509.Name:
    values = {NameOID.COMMON_NAME: name, NameOID.ORGANIZATION_NAME: org, NameOID.ORGANIZATIONAL_UNIT_NAME: unit}
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in values.items()])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _is_p256(key: object) -> bool:
    return isinstance(key, (ec.EllipticCurvePublicKey, ec.EllipticCurvePrivateKey)) and isinstance(key.curve, ec.SECP256R1)


def _date(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _text(seconds: float) -> str:
    return _date(seconds).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
