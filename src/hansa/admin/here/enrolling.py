"""A site's certificates, the first and the next: the key is made here, and only a signing request leaves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

from hansa.admin.channel import Channel
from hansa.admin.wire import Wire, proxy_of
from hansa.errors import InputError
from hansa.runtime.authz import renewal
from hansa.runtime.authz.certificates import der, signing_request
from hansa.runtime.config import BOOTSTRAP_FILE, BOOTSTRAP_KEY_FILE, Kit, save_certificate, site_key
from hansa.runtime.protocol.messages import Enrol, Enrolled, Renew, encode
from hansa.runtime.protocol.session import proof

_PATH = "/v1/enroll"
_RENEW = "/v1/renew"


def enroll(kit: Kit, *, environment: Mapping[str, str]) -> None:
    """Make the site's key, have it certified with the kit's one-time token, and store the certificate in the kit.

    Cut off, it may be repeated: the key that was made stays, and the server answers the same key again. Of `environment`, the
    process's own, comes the proxy (HTTPS_PROXY, NO_PROXY) where site.toml names none.

    Raises:
        InputError: the kit holds no token. IdentityError: the server says no, and why (`token_used`, `token_expired`, ...).
        UnreachableError: there is no way to it.
    """
    key, chain, token = kit.bootstrap()
    asked = Enrol(csr=signing_request(site_key(kit), kit.name), token=token)
    shown = proof(key, method="POST", url=kit.url + _PATH, now=time.time(), chain=der(*chain))
    certificate, secret = kit.folder / BOOTSTRAP_FILE, kit.folder / BOOTSTRAP_KEY_FILE
    with contextlib.closing(Wire(kit, certificate, secret, proxy=proxy_of(kit, environment))) as wire:
        headers = {"DPoP": shown, "Content-Type": "application/json"}
        made = wire.ask("POST", _PATH, Enrolled, content=encode(asked), headers=headers)
    save_certificate(kit, made.certificate, now=time.time())


def renew(kit: Kit, *, environment: Mapping[str, str], keep_key: bool = False) -> None:
    """Ask for the site's next certificate with the one it has, for a new key unless `keep_key`, and store it in the kit.

    Raises:
        InputError: not a site's kit. IdentityError: the server says no, or the certificate has ended. UnreachableError.
    """
    if kit.kind != "site" or not kit.enrolled:
        hint = "enrol it first: hansa site enroll KIT" if kit.kind == "site" else "people's and the server's: hansa provision renew"
        raise InputError("not the kit of a site that has a certificate", path=str(kit.folder), got=kit.kind, hint=hint)
    asked = renewal.ask(kit.name, kit.private_key(), keep_key=keep_key)
    with contextlib.closing(Channel(kit, proxy=proxy_of(kit, environment))) as channel:
        made = channel.ask("POST", _RENEW, Enrolled, body=Renew(csr=asked.csr))
    renewal.replace(kit.key, kit.certificate, asked, made.certificate)
