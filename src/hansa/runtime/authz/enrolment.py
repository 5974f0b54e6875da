"""How a site comes by its certificate: a key made at the site, a signing request, a one-time token. Pure.

Site:   key, csr = request(name)  ->  store the key  ->  POST /v1/enroll Enrol(csr, token)  ->  store the certificate
Server: enrol(csr, token, ...)    ->  commit `Enrolment.ticket` as used  ->  answer with the certificate
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.errors import IdentityError
from hansa.runtime.authz.certificates import (
    SITE_DAYS,
    Authority,
    Identity,
    certify,
    key_digest,
    new_key,
    pem,
    requested_key,
    signing_request,
)
from hansa.runtime.authz.policy import Member, Policy
from hansa.runtime.authz.signed import Document

TOKEN_HOURS: Final = 24
_TOKEN_LIMIT: Final = 256
_AGAIN: Final = "ask the project's administrator for a new kit: hansa provision rotate NAME"


class Ticket(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A one-time token as the server knows it: its hash, for whom it is, until when, and which key used it, if one did."""

    site: str
    generation: int
    hash: str  # SHA-256 of the token, which has 256 random bits: nothing to guess
    expires: float
    used_for: str = ""


class Tickets(Document, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tickets that provisioning made, as the server's kit holds them. Which are used, the server's store knows."""

    tickets: tuple[Ticket, ...] = ()


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A certificate that was made, and the ticket to commit before it is handed out."""

    identity: Identity
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    ticket: Ticket | None

    @property
    def certified(self) -> tuple[x509.Certificate, ...]:
        """The certificate, then its intermediates."""
        return (self.certificate, *self.chain)

    @property
    def certificate_pem(self) -> str:
        """The same as PEM."""
        return pem(*self.certified).decode()


def new_ticket(site: str, *, generation: int, now: float) -> tuple[str, Ticket]:
    """A one-time token for the kit, and the ticket for the server. The token itself is kept nowhere else."""
    token = secrets.token_urlsafe(32)
    return token, Ticket(site=site, generation=generation, hash=_hash(token), expires=now + TOKEN_HOURS * 3_600.0)


def request(name: str) -> tuple[ec.EllipticCurvePrivateKey, str]:
    """A new key and the signing request for it. Store the key before the request is sent: the token is good for this key only."""
    key = new_key()
    return key, signing_request(key, name)


def enrol(
    csr: str,
    token: str,
    *,
    bootstrap: Identity,
    tickets: Iterable[Ticket],
    policy: Policy,
    authority: Authority,
    now: float,
) -> Enrolment:
    """A site's first certificate. The same request again, after an answer that was lost, is answered again.

    `bootstrap` is whom the request's certificate names, checked (`check_chain`); `tickets` are all, with what used them.

    Raises:
        IdentityError: `wrong_kind`: not asked with a bootstrap certificate; `bad_token`; `token_expired`; `token_used`: by another
            key; `wrong_site`: the token is another site's; `stale_policy`: the kit is newer than the roster; `bad_request`; and
            what `Policy.admit` says.
    """
    if bootstrap.kind != "bootstrap":
        hint = "a site that has its certificate renews it; it does not enrol again"
        raise IdentityError("wrong_kind", "enrolling takes the kit's bootstrap certificate", got=bootstrap.kind, hint=hint)
    member = policy.admit(bootstrap)
    if bootstrap.generation > member.generation:  # a certificate of the old generation would be shut out by the newer roster
        hint = "the server takes it in within seconds; enrol again"
        raise IdentityError("stale_policy", "the kit is newer than the server's roster", site=member.name, hint=hint)
    key = requested_key(csr)
    ticket, used_for = _find(tickets, token), key_digest(key)
    if (ticket.site, ticket.generation) != (bootstrap.name, bootstrap.generation):
        raise IdentityError(
            "wrong_site", "the token belongs to another site's kit", got=bootstrap.name, hint="use a kit as it came"
        )
    if ticket.used_for and not hmac.compare_digest(ticket.used_for, used_for):
        hint = f"if that was not you, tell the administrator at once; {_AGAIN}"
        raise IdentityError("token_used", "the one-time token was used already, for another key", site=ticket.site, hint=hint)
    if now > ticket.expires:
        got = f"{(now - ticket.expires) / 3_600:.1f} hours too late"
        raise IdentityError("token_expired", "the one-time token has expired", site=ticket.site, got=got, hint=_AGAIN)
    return _certify(key, member, policy.project, authority, now, msgspec.structs.replace(ticket, used_for=used_for))


def renew(csr: str, *, identity: Identity, policy: Policy, authority: Authority, now: float) -> Enrolment:
    """A site's next certificate, asked for with the one it has.

    Raises:
        IdentityError: `wrong_kind`: not a site; `bad_request`; and what `Policy.admit` says.
    """
    if identity.kind != "site":
        raise IdentityError("wrong_kind", "only sites renew their certificates", got=identity.kind, hint=_AGAIN)
    return _certify(requested_key(csr), policy.admit(identity), policy.project, authority, now, None)


def _certify(
    key: ec.EllipticCurvePublicKey, member: Member, project: str, authority: Authority, now: float, ticket: Ticket | None
) -> Enrolment:
    if (until := authority.certificate.not_valid_after_utc.timestamp()) <= now:
        got, hint = f"{(now - until) / 86_400:.1f} days ago", "the project's administrator types `hansa provision renew`"
        raise IdentityError("expired", "the server's CA for sites has ended", got=got, hint=hint)
    site = Identity(name=member.name, kind="site", org=member.org, project=project, generation=member.generation)
    certificate = certify(key, site, authority, now=now, days=SITE_DAYS)
    serial = f"{certificate.serial_number:x}"
    named = Identity(name=site.name, kind="site", org=site.org, project=project, serial=serial, generation=site.generation)
    return Enrolment(named, certificate, authority.chain, ticket)


def _find(tickets: Iterable[Ticket], token: str) -> Ticket:
    """The token's ticket. All are compared, each in constant time: how long it takes says nothing."""
    wanted, found = _hash(token[:_TOKEN_LIMIT]), None
    for ticket in tickets:
        if hmac.compare_digest(ticket.hash, wanted):
            found = ticket
    if found is None:
        raise IdentityError("bad_token", "the one-time token is not known", hint=_AGAIN)
    return found


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
