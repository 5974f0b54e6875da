"""The policy document: who belongs to the project, in which role, and who no longer does. Signed by the project key."""

from __future__ import annotations

import functools
from typing import Annotated, Final, Literal

import msgspec

from hansa.errors import IdentityError
from hansa.runtime.authz.certificates import Identity
from hansa.runtime.authz.signed import Document, unseal

Role = Literal["project_admin", "org_admin", "lead", "member", "auditor"]
_NEW_KIT: Final = "ask the project's administrator for the new kit, then: hansa provision unpack NEW.zip --into KIT"
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A server, site or person. Certificates of a generation before `generation` are revoked."""

    name: str
    kind: Literal["server", "site", "admin"]
    org: str
    role: Role | None = None  # of people
    generation: Positive = 1


class Revoked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A name, or one certificate by its serial number, that is no longer good. `at` is in seconds since 1970."""

    name: str = ""
    serial: str = ""
    at: float
    reason: str = ""


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the project asks of every job. A site's own policy may ask for more, never for less."""

    min_cohort: Positive = 2
    max_job_mb: Positive = 64


class Policy(Document, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """One version of the roster and the rules. A lower `version` than the one at hand is never taken."""

    project: str
    version: Positive
    issued: float
    members: tuple[Member, ...]
    revoked: tuple[Revoked, ...] = ()
    rules: Rules = Rules()

    def member(self, name: str) -> Member | None:
        """The member of that name, revoked or not."""
        return self._by_name.get(name)

    def admit(self, identity: Identity) -> Member:
        """The member that the identity is, for one request: the check that makes a revocation bite.

        Raises:
            IdentityError: `revoked`; `unknown_name`: not in the roster; `wrong_name`: the roster has the name for something else;
                `wrong_project`.
        """
        if identity.project != self.project:
            hint = "use a kit of this project"
            raise IdentityError("wrong_project", "another project's", expected=self.project, got=identity.project, hint=hint)
        member = self.member(identity.name)
        entry = self._revocation(identity)
        if entry is not None:
            why = f": {entry.reason}" if entry.reason else ""
            hint = "ask the project's administrator; who is to come back gets a kit under another name"
            raise IdentityError("revoked", f"{identity.name} was revoked{why}", hint=hint if entry.name else _NEW_KIT)
        if member is not None and identity.generation < member.generation:
            raise IdentityError("revoked", f"the kit of {identity.name} was revoked: there is a newer one", hint=_NEW_KIT)
        if member is None:
            hint = "the server may hold an older roster: copy policy.json into its kit"
            raise IdentityError("unknown_name", f"{identity.name} is not in the roster of version {self.version}", hint=hint)
        kind = "site" if identity.kind == "bootstrap" else identity.kind
        if (member.kind, member.org) != (kind, identity.org):
            found, wanted = f"{kind} of {identity.org}", f"{member.kind} of {member.org}"
            raise IdentityError("wrong_name", f"{identity.name} is something else in the roster", expected=wanted, got=found)
        return member

    def revocation(self, name: str) -> Revoked | None:
        """The entry that shuts the name out for good, if there is one."""
        return self._revoked.get(("name", name))

    def _revocation(self, identity: Identity) -> Revoked | None:
        by_serial = self._revoked.get(("serial", identity.serial)) if identity.serial else None
        return self._revoked.get(("name", identity.name)) or by_serial

    @functools.cached_property  # asked for on every request
    def _by_name(self) -> dict[str, Member]:
        return {member.name: member for member in self.members}

    @functools.cached_property
    def _revoked(self) -> dict[tuple[str, str], Revoked]:
        return {("name", entry.name) if entry.name else ("serial", entry.serial): entry for entry in self.revoked}


def read_policy(data: bytes, key: bytes, *, newer_than: Policy | None = None) -> Policy:
    """The policy in a signed document, at least as new as the one at hand.

    Raises:
        IdentityError: `bad_signature`; `stale_policy`: an older version than the one at hand, or the same one with another content.
        VersionError: a newer Hansa wrote it: closed.
    """
    policy = unseal(data, Policy, key)
    if newer_than is not None and (policy.version < newer_than.version or policy.project != newer_than.project):
        hint = "an old roster would let revoked names back in; copy the newest policy.json from the provisioning folder"
        raise IdentityError("stale_policy", "an older policy", expected=newer_than.version, got=policy.version, hint=hint)
    if newer_than is not None and policy.version == newer_than.version and policy != newer_than:
        raise IdentityError(
            "stale_policy", "two policies of one version", got=policy.version, hint="write a new one: hansa provision"
        )
    return policy
