"""A site's certificate renews by itself: asked for with the one that it has, over the connection that it has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from hansa.errors import HansaError
from hansa.runtime.authz import renewal
from hansa.runtime.authz.certificates import der
from hansa.runtime.config import Kit, check_given
from hansa.runtime.protocol.messages import Enrolled, Renew
from hansa.runtime.transport.http import Connection, Credentials

_LOG: Final = logging.getLogger("hansa.site")
_PATH: Final = "/v1/renew"


def credentials_of(kit: Kit) -> Credentials:
    """Who the kit says that asks, and whom."""
    return Credentials(
        url=kit.url,
        ca=kit.trusted,
        certificate=kit.certificate if kit.direct else None,
        key_file=kit.key if kit.direct else None,
        chain=der(*kit.chain()),
        key=kit.private_key(),
    )


async def keep_renewed(kit: Kit, connection: Connection, *, clock: Callable[[], float] = time.time) -> None:
    """Renew the kit's certificate whenever two thirds of its life are over, until the caller cancels.

    A server that says no is asked again, until the certificate ends; each time, the log says how many days are left.
    """
    while True:
        chain, now = kit.chain(), clock()
        if now >= renewal.renew_at(chain):
            before = renewal.ends(chain)
            try:
                await renew(kit, connection)
            except HansaError as error:
                left = (before - now) / renewal.DAY_S
                _LOG.warning("certificate.not_renewed site=%s days_left=%.1f why=%r", kit.name, left, str(error))
            else:
                chain = kit.chain()
                until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(renewal.ends(chain)))
                _LOG.info("certificate.renewed site=%s until=%r", kit.name, until)
                if renewal.ends(chain) <= before:
                    hint = "the server's site CA ends as well: its administrator types `hansa provision renew`"
                    _LOG.warning("certificate.no_longer site=%s until=%r hint=%r", kit.name, until, hint)
        await asyncio.sleep(renewal.pause_s(chain, clock()))


async def renew(kit: Kit, connection: Connection, *, keep_key: bool = False) -> None:
    """Give the kit its next certificate, for a new key unless `keep_key`, and the connection with it.

    Raises:
        IdentityError: the server does not give one, and says why; or what it gives is none of this project's CA.
        StorageError: it cannot be stored; the old one stands.
    """
    asked = renewal.ask(kit.name, kit.private_key(), keep_key=keep_key)
    made = await connection.post(_PATH, Renew(csr=asked.csr), Enrolled)
    check_given(kit, made.certificate, now=time.time())
    await asyncio.to_thread(renewal.replace, kit.key, kit.certificate, asked, made.certificate)
    await connection.adopt(credentials_of(kit))
