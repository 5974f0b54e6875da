"""The way to the server: through a proxy or straight, and whose certificate is believed at its end."""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # known to its documentation alone

import httpx

from hansa.errors import ConfigError, InputError

LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})  # a proxy is for what is elsewhere
NO_PROXY: Final = "none"
_LIKE: Final = "an address as http://proxy.example.org:3128"


def proxy_for(url: str, environment: Mapping[str, str], *, own: str = "", login: str = "") -> httpx.Proxy | None:
    """The HTTP proxy on the way to the address, if there is one: `own` (that of site.toml) before HTTPS_PROXY and NO_PROXY.

    own: "none" for no proxy. login: NAME:PASSWORD, for a proxy whose address holds none.

    Raises:
        ConfigError: what should be a proxy's address is none; names where it stands.
    """
    if own == NO_PROXY:
        return None
    if own:
        if "@" in own:
            hint = "put NAME:PASSWORD into the file proxy.login beside it, for its owner's eyes alone (chmod 600)"
            raise ConfigError("a password does not belong into site.toml", path="$.proxy", hint=hint)
        return _proxy(own, login, "$.proxy")
    host = urlsplit(url).hostname or ""
    named = environment.get("https_proxy") or environment.get("HTTPS_PROXY") or ""
    exempt = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if not named or host in LOCAL or proxy_bypass_environment(host, {"no": exempt}):
        return None
    return _proxy(named, login, "HTTPS_PROXY")


def tls(ca: Path | None, certificate: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """What a connection believes and shows. `ca` None: any CA that this machine knows. `certificate` None: nothing is shown.

    Raises:
        InputError: a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    except (OSError, ssl.SSLError) as error:
        raise _unusable(error, ca) from error
    show(context, certificate, key_file)
    return context


def show(context: ssl.SSLContext, certificate: Path | None, key_file: Path | None) -> None:
    """Show the certificate in handshakes from now on, instead of another if there was one. None: nothing.

    Raises:
        InputError: a file cannot be used.
    """
    try:
        if certificate is not None:
            context.load_cert_chain(certificate, key_file)
    except (OSError, ssl.SSLError) as error:
        raise _unusable(error, certificate) from error


def _unusable(error: Exception, path: Path | None) -> InputError:
    hint = "unpack the kit anew; enrol a site's first"
    return InputError(f"the kit's certificates cannot be used: {error}", path=str(path), hint=hint)


def way(url: str, context: ssl.SSLContext, proxy: httpx.Proxy | None, *, timeout_s: float) -> http.client.HTTPSConnection:
    """A connection to the address, through the proxy if there is one; not yet made."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    if proxy is None:
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    made = http.client.HTTPSConnection(proxy.url.host, proxy.url.port or 80, timeout=timeout_s, context=context)
    login = proxy.raw_auth and {"Proxy-Authorization": f"Basic {base64.b64encode(b':'.join(proxy.raw_auth)).decode()}"}
    made.set_tunnel(host, port, login or {})
    return made


def _proxy(address: str, login: str, where: str) -> httpx.Proxy:
    try:
        found = httpx.Proxy(address if "://" in address else f"http://{address}")
    except (ValueError, httpx.InvalidURL):
        found = None
    if found is None or found.url.scheme != "http" or not found.url.host:  # what stands there may hold a password
        raise ConfigError("not the address of a proxy", path=where, expected=_LIKE)
    if not login or found.auth is not None:
        return found
    name, _, password = login.partition(":")
    return httpx.Proxy(found.url, auth=(name, password))
