"""The door: who asks, checked on every request against the live roster; and what roles may do, each refusal on record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography import x509

from hansa.errors import HansaError, RefusedError
from hansa.runtime.audit.chain import entry
from hansa.runtime.authz.certificates import Identity, check_chain
from hansa.runtime.authz.enrolment import Enrolment, Ticket, enrol, renew
from hansa.runtime.authz.policy import Member, Policy, read_policy
from hansa.runtime.authz.renewal import ends
from hansa.runtime.authz.rights import permits
from hansa.runtime.config import POLICY_FILE, Kit
from hansa.runtime.protocol.messages import TOKEN_S, Enrol, Enrolled, Renew, Token
from hansa.runtime.protocol.session import Seen, check_proof, check_token, issue, new_secret
from hansa.runtime.server.inbox import Inbox
from hansa.runtime.server.known import PROJECT
from hansa.runtime.store.event import Entry

ROSTER_S: Final = 2.0  # how often the roster's file is looked at: a revocation bites within that


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: a member of the project, the identity that the token named, and the key's thumbprint."""

    member: Member
    identity: Identity
    thumbprint: str

    @property
    def name(self) -> str:
        """The member's name."""
        return self.member.name

    @property
    def actor(self) -> str:
        """The name and the key, as the audit has them."""
        return f"{self.member.name} {self.thumbprint[:16]}"


class Door:
    """Checks who asks. `on_roster` is called when the roster has changed.

    Raises:
        IdentityError: the kit's policy is not signed by the project.
    """

    def __init__(self, kit: Kit, inbox: Inbox) -> None:
        self._kit, self._inbox = kit, inbox
        self._ca, self._secret, self._seen = kit.ca_certificate(), new_secret(), Seen()
        self.policy: Policy = read_policy(kit.policy, kit.project_key)
        self.document = kit.policy  # the policy as the project signed it, for sites to check
        self._stamp = self._file_stamp()
        self._untold: list[Entry] = []  # of the roster, and not on record yet
        self.on_roster: Callable[[], None] = lambda: None
        self._enrolling = asyncio.Lock()  # a ticket is looked at, and its use committed, by one request at a time
        self.certified: dict[str, float] = {}  # sites, and until when: as they last asked for a token
        self.keys: dict[str, str] = {}  # sites, and the thumbprint of the key that the token is bound to

    def token(self, method: str, path: str, proof: str | None) -> Token:
        """A token for who shows a certificate of this project and its key.

        Raises:
            IdentityError: says which fault it is.
        """
        now = time.time()
        proved = check_proof(proof, method=method, url=self._kit.url + path, now=now)
        identity = check_chain(proved.chain, self._ca, now=now)
        self.policy.admit(identity)
        self._seen.remember(proved, now=now)
        if identity.kind == "site":
            self.certified[identity.name] = ends([x509.load_der_x509_certificate(each) for each in proved.chain])
            self.keys[identity.name] = proved.thumbprint
        text = issue(self._secret, identity=identity, thumbprint=proved.thumbprint, now=now)
        return Token(token=text, expires_in=TOKEN_S, server_time=now)

    def admit(self, method: str, path: str, proof: str | None, authorization: str | None, kind: str) -> Asker:
        """Who asks, if they are of that kind.

        Raises:
            IdentityError: says which fault it is. RefusedError: another kind.
        """
        now = time.time()
        proved = check_proof(proof, method=method, url=self._kit.url + path, now=now)
        scheme, _, token = (authorization or "").partition(" ")
        identity = check_token(self._secret, token if scheme == "DPoP" else None, proved, now=now)
        member = self.policy.admit(identity)
        self._seen.remember(proved, now=now)
        if identity.kind not in kind.split("|"):
            raise RefusedError("this is not for you", got=identity.kind, expected=kind, hint="use the kit of a person or of a site")
        return Asker(member, identity, proved.thumbprint)

    def still(self, asker: Asker) -> None:
        """Return if the asker is still good: asked anew while a transfer or a poll goes on.

        Raises:
            IdentityError: `revoked`, or another fault.
        """
        self.policy.admit(asker.identity)

    async def require(self, asker: Asker, command: str, resource: str, *, own: bool = False, same_org: bool = False) -> None:
        """Return if the asker's role permits it; a refusal is put on record first.

        Raises:
            RefusedError: it does not.
        """
        if permits(asker.member.role, command, own=own, same_org=same_org):
            return
        role = asker.member.role or "no role"
        denied = entry(asker.actor, command, resource, "deny", reason=role, hashes={"policy": str(self.policy.version)})
        await self._inbox.commit({PROJECT: [denied]})
        hint = "ask the project's administrator for the right, or the author of the run"
        raise RefusedError(f"a {role} may not do this", got=f"{command} {resource}", hint=hint)

    def permitted(self, asker: Asker, command: str, resource: str) -> Entry:
        """The audit's entry of something that is done: to be committed with it."""
        return entry(asker.actor, command, resource, "permit", hashes={"policy": str(self.policy.version)})

    async def enrol(self, method: str, path: str, proof: str | None, asked: Enrol) -> Enrolled:
        """A site's first certificate, for its one-time token.

        Raises:
            IdentityError: says which fault it is.
        """
        now = time.time()
        proved = check_proof(proof, method=method, url=self._kit.url + path, now=now)
        bootstrap = check_chain(proved.chain, self._ca, now=now)
        self._seen.remember(proved, now=now)
        async with self._enrolling:
            return await self._enrol(bootstrap, asked, now)

    async def _enrol(self, bootstrap: Identity, asked: Enrol, now: float) -> Enrolled:
        used = self._inbox.book.tickets
        tickets = [_with_use(ticket, used) for ticket in self._kit.tickets().tickets]
        made = enrol(
            asked.csr, asked.token, bootstrap=bootstrap, tickets=tickets, policy=self.policy, authority=self._kit.site_ca(), now=now
        )
        if made.ticket is not None:
            data = {
                "site": made.identity.name,
                "serial": made.identity.serial,
                "hash": made.ticket.hash,
                "used_for": made.ticket.used_for,
                "until": ends(made.certified),
            }
            await self._inbox.commit({PROJECT: [Entry("site.enrolled", data)]})
        return self._given(made)

    async def renew(self, asker: Asker, asked: Renew) -> Enrolled:
        """A site's next certificate, asked for with the one it has.

        Raises:
            IdentityError: says which fault it is.
        """
        now = time.time()
        made = renew(asked.csr, identity=asker.identity, policy=self.policy, authority=self._kit.site_ca(), now=now)
        data = {"site": asker.name, "serial": made.identity.serial, "until": ends(made.certified)}
        await self._inbox.commit({PROJECT: [Entry("site.renewed", data)]})
        return self._given(made)

    def _given(self, made: Enrolment) -> Enrolled:
        self.certified[made.identity.name] = ends(made.certified)
        return Enrolled(certificate=made.certificate_pem, chain=self._kit.ca.read_text())

    async def watch(self, stop: asyncio.Event) -> None:
        """Take in a new roster when its file changes, until the server stops. While a new one is not good, the old one stands."""
        while not stop.is_set():
            try:
                async with asyncio.timeout(ROSTER_S):
                    await stop.wait()
            except TimeoutError:
                await self._look()

    async def _look(self) -> None:
        stamp = self._file_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            self._untold += self._taken()
        if self._untold:  # what cannot be put on record, the disk being full, is tried again with the next look
            told = list(self._untold)
            await self._inbox.commit({PROJECT: told})
            del self._untold[: len(told)]

    def _taken(self) -> list[Entry]:
        """Take in the roster's file; what is to be put on record of it. A revocation bites whether or not that can be."""
        path = self._kit.folder / POLICY_FILE
        try:
            document = path.read_bytes()
            policy = read_policy(document, self._kit.project_key, newer_than=self.policy)
        except (HansaError, OSError) as error:
            return [Entry("policy.refused", {"reason": str(error)[:500]})]
        if policy.version <= self.policy.version:
            return []
        self.policy, self.document = policy, document
        self.on_roster()
        return [Entry("policy.taken", {"version": policy.version})]

    def _file_stamp(self) -> tuple[int, int]:
        try:
            found = (self._kit.folder / POLICY_FILE).stat()
        except FileNotFoundError:  # being replaced by hand: the roster at hand stands
            return 0, 0
        return found.st_mtime_ns, found.st_ino


def _with_use(ticket: Ticket, used: dict[str, str]) -> Ticket:
    return msgspec.structs.replace(ticket, used_for=used.get(ticket.hash, "")) if ticket.hash in used else ticket
