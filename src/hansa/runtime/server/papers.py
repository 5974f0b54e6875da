"""The server's own certificates: taken in when their files change, without a restart; told of before they end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from hansa.errors import HansaError, IdentityError
from hansa.runtime.authz.certificates import identity_of
from hansa.runtime.authz.renewal import DAY_S, check_pair, ends, renew_at
from hansa.runtime.config import Kit
from hansa.runtime.server.inbox import Inbox
from hansa.runtime.server.known import PROJECT
from hansa.runtime.store.event import Entry

LOOK_S: Final = 2.0  # how often the file is looked at
TELL_S: Final = DAY_S  # how often what is due is told of
_LOG: Final = logging.getLogger("hansa.server")


@dataclass(frozen=True)
class Paper:
    """A certificate of the server: what it is for, and the chain that it is checked with, leaf first."""

    what: str
    chain: tuple[x509.Certificate, ...]

    @property
    def until(self) -> float:
        """When it ends, in seconds since 1970."""
        return ends(self.chain)

    @property
    def due(self) -> float:
        """From when on it is to be renewed."""
        return renew_at(self.chain)


class Papers:
    """The kit's certificates. `swap` puts the kit's files, which are good, in the place of those that are served."""

    def __init__(self, kit: Kit, inbox: Inbox, swap: Callable[[], None]) -> None:
        self._kit, self._inbox, self._swap = kit, inbox, swap
        self._stamp = _stamp(kit.certificate)
        self._told = 0.0

    def all(self) -> Iterator[Paper]:
        """What can end: the server's own certificate, the CA of sites, and the project's CA."""
        ca = self._kit.ca_certificate()
        yield Paper("server", (*self._kit.chain(), ca))
        yield Paper("site_ca", (self._kit.site_ca().certificate, ca))
        yield Paper("ca", (ca,))

    async def watch(self, stop: asyncio.Event) -> None:
        """Take in a certificate that is new, and tell of those that are due, until the server stops."""
        while not stop.is_set():
            self._tell(time.time())
            try:
                async with asyncio.timeout(LOOK_S):
                    await stop.wait()
            except TimeoutError:
                await self._look()

    async def _look(self) -> None:
        stamp = _stamp(self._kit.certificate)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            chain = self._kit.chain()
            _check(self._kit, chain[0], time.time())
        except HansaError as error:  # the one that is served stands
            _LOG.warning("certificate.refused path=%s why=%r", self._kit.certificate, str(error))
            await self._inbox.commit({PROJECT: [Entry("certificate.refused", {"reason": str(error)[:500]})]})
            return
        self._swap()
        taken = {"serial": f"{chain[0].serial_number:x}", "until": ends(chain)}
        await self._inbox.commit({PROJECT: [Entry("certificate.taken", taken)]})
        self._told = 0.0

    def _tell(self, now: float) -> None:
        if now - self._told < TELL_S:
            return
        self._told = now
        for paper in self.all():
            if now >= paper.due:
                hint = "a project's CA is not renewed: provision a new folder, with new kits for everybody, before it ends"
                hint = hint if paper.what == "ca" else "at the provisioning folder: hansa provision renew; then copy what it names"
                _LOG.warning("certificate.ends what=%s days_left=%.1f hint=%r", paper.what, (paper.until - now) / DAY_S, hint)


def _check(kit: Kit, certificate: x509.Certificate, now: float) -> None:
    """Return if the server can be known by the certificate.

    Raises:
        IdentityError: `wrong_key`, `wrong_ca`, `wrong_name`, `expired`.
    """
    where, hint = str(kit.certificate), "copy the file from the provisioning folder: kits/server/certificate.pem"
    check_pair(kit.private_key(), certificate, kit.certificate)
    try:
        certificate.verify_directly_issued_by(kit.ca_certificate())
    except (ValueError, TypeError, InvalidSignature) as error:
        raise IdentityError("wrong_ca", "the certificate was not made by this project's CA", path=where, hint=hint) from error
    who = identity_of(certificate)
    if (who.kind, who.name) != (kit.kind, kit.name):
        raise IdentityError("wrong_name", "the certificate is another's", path=where, got=who.name, hint=hint)
    if ends([certificate]) <= now:
        raise IdentityError("expired", "the certificate has expired", path=where, hint=hint)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:  # being replaced by hand: the one that is served stands
        return 0, 0
    return found.st_mtime_ns, found.st_ino
