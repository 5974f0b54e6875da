"""What could keep a site, a person or a server from working, looked for before anything starts: each fault with its mend."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hansa.admin.channel import Channel
from hansa.admin.wire import proxy_of
from hansa.errors import ConfigError, HansaError, IdentityError
from hansa.runtime import sandbox
from hansa.runtime.authz.renewal import DAY_S, ends, renew_at
from hansa.runtime.config import EVENTS_FILE, Kit, ServerSettings, SiteConfig, is_place, load_kit, load_site
from hansa.runtime.store.disk import owner_of

KIT, CERTIFICATE, ADDRESS, TLS, PROXY, CLOCK, DISK, FILES, SANDBOX, SITE = range(10, 20)
SKEW_S: Final = 30.0  # at 60 s the server refuses
FREE_BYTES: Final = 2 << 30
OPEN_FILES: Final = 1_024
_MENDS: Final = {  # by kind of kit, and whether the certificate is still good
    ("site", True): "its agent renews it while it runs; or now: hansa site renew KIT",
    ("site", False): "ask the administrator: hansa provision rotate {}; then hansa provision unpack NEW.zip --into this folder",
    ("server", True): "at the provisioning folder: hansa provision renew",
    ("server", False): "at the provisioning folder: hansa provision renew {}; then copy certificate.pem into this kit",
    ("admin", True): "ask the administrator: hansa provision renew; the new certificate.pem goes into this kit",
    ("admin", False): "ask the administrator: hansa provision renew {}; the new certificate.pem goes into this kit",
}
_OF_IDENTITY: Final = {"revoked", "unknown_name", "wrong_project", "token_expired"}  # what the server says of the kit


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at. `code` is the exit code of its fault; `hint` says how to mend it."""

    name: str
    code: int
    good: bool
    detail: str = ""
    hint: str = ""


def look(folder: Path) -> Iterator[Check]:
    """Every check of a kit, one after the other."""
    try:
        kit = load_kit(folder)
    except HansaError as error:
        yield _failed("kit", KIT, error)
        return
    yield Check("kit", KIT, True, f"{kit.kind} {kit.name} of {kit.org}, project {kit.project}; every file is as it was signed")
    yield _certificate(kit)
    if kit.kind == "server":
        yield from _authorities(kit)
        yield _port(kit)
    elif kit.enrolled:
        yield from _server(kit)
    yield _disk(kit)
    yield _open_files()
    if kit.kind == "site":
        yield from _site(kit)
    if kit.kind == "server":
        yield _sandbox(kit, (kit.server or ServerSettings()).sandbox, "[server] sandbox in project.toml")


def _certificate(kit: Kit) -> Check:
    name = "certificate"
    if not kit.enrolled:
        return _bootstrap(kit)
    chain, now = (*kit.chain(), kit.ca_certificate()), time.time()
    days = (ends(chain) - now) / DAY_S
    if chain[0].not_valid_before_utc.timestamp() > now:
        return Check(name, CERTIFICATE, False, "it is not valid yet", "set this machine's clock by NTP")
    if days < 0:
        return Check(name, CERTIFICATE, False, f"it ended {-days:.1f} days ago", _MENDS[kit.kind, False].format(kit.name))
    return Check(name, CERTIFICATE, True, f"{days:.0f} days left", _MENDS[kit.kind, True] if now >= renew_at(chain) else "")


def _bootstrap(kit: Kit) -> Check:
    """A kit that is not enrolled yet: for how long it can be."""
    try:
        _, chain, _ = kit.bootstrap()
    except HansaError as error:
        return _failed("certificate", CERTIFICATE, error)
    hours = (ends(chain) - time.time()) / 3_600
    if hours < 0:
        told = f"not enrolled, and its one-time token ended {-hours:.1f} hours ago"
        return Check("certificate", CERTIFICATE, False, told, _MENDS["site", False].format(kit.name))
    told = f"not enrolled yet; its one-time token is good for {hours:.1f} hours more"
    return Check("certificate", CERTIFICATE, False, told, f"hansa site enroll {kit.folder}")


def _authorities(kit: Kit) -> Iterator[Check]:
    """Of a server: its CA for sites, and the project's own."""
    ca, now = kit.ca_certificate(), time.time()
    for name, chain in (("site CA", (kit.site_ca().certificate, ca)), ("project CA", (ca,))):
        days = (ends(chain) - now) / DAY_S
        mend = _MENDS["server", True] if name == "site CA" else "provision a new folder, with new kits, before it ends"
        yield Check(name, CERTIFICATE, days >= 0, f"{days:.0f} days left", mend if now >= renew_at(chain) else "")


def _server(kit: Kit) -> Iterator[Check]:
    """The way to the server, whether it is the right one, whether it lets the kit in, and its clock."""
    try:
        proxy = proxy_of(kit, os.environ)
    except ConfigError as error:
        if kit.kind == "site" and error.path not in ("$.proxy", "HTTPS_PROXY"):
            return  # site.toml is wrong: that is told of
        yield _failed("proxy", PROXY, error)
        return
    asked = time.time()
    try:
        with contextlib.closing(Channel(kit, proxy=proxy)) as channel:
            server_time = channel.fetch_token().server_time
    except IdentityError as error:
        code = CLOCK if error.code == "clock_skew" else CERTIFICATE if error.code in _OF_IDENTITY else TLS
        yield _failed({CLOCK: "clock", CERTIFICATE: "roster", TLS: "TLS"}[code], code, error)
        return
    except HansaError as error:
        of_proxy = error.code.startswith("proxy")
        yield _failed("proxy" if of_proxy else "address", PROXY if of_proxy else ADDRESS, error)
        return
    if proxy is not None:
        yield Check("proxy", PROXY, True, f"{proxy.url.host}:{proxy.url.port or 80} lets the connection through")
    yield Check("address", ADDRESS, True, f"{kit.url} answers, and is this project's server")
    yield Check("roster", CERTIFICATE, True, f"the server knows {kit.name}")
    skew_s = server_time - (asked + time.time()) / 2
    told = f"the server's clock is {abs(skew_s):.1f} s {'ahead' if skew_s > 0 else 'behind'}"
    yield Check("clock", CLOCK, abs(skew_s) <= SKEW_S, told, "" if abs(skew_s) <= SKEW_S else "set both clocks by NTP")


def _port(kit: Kit) -> Check:
    """Whether the server can listen, or does so already: then its store is in use, and what holds the port is itself."""
    host, port = (kit.server.host, kit.server.port) if kit.server else ("", 0)
    if (owner := owner_of(kit.data / EVENTS_FILE)) is not None:
        return Check("address", ADDRESS, True, f"the server is running, {owner}, and listens at {host}:{port}")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            hint = "stop what listens there, or choose another listen_port in project.toml and provision again"
            return Check("address", ADDRESS, False, f"cannot listen at {host}:{port}: {error.strerror}", hint)
    return Check("address", ADDRESS, True, f"{host}:{port} is free to listen at")


def _disk(kit: Kit) -> Check:
    place = kit.data if kit.kind == "server" and kit.data.exists() else kit.folder
    usage = shutil.disk_usage(place)
    free, least = usage.free, max(FREE_BYTES, int(usage.total * (kit.server.low_water if kit.server else 0.0)))
    stays = "" if free >= least else f", of which {least / 2**30:.1f} GiB are to stay free"
    told = f"{free / 2**30:.1f} GiB free at {place}{stays}"
    if not os.access(place, os.W_OK):
        return Check("disk", DISK, False, f"{place} cannot be written", f"chown -R the service's user {place}")
    return Check("disk", DISK, free >= least, told, "" if free >= least else "make room: models and checkpoints need it")


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    good = soft == resource.RLIM_INFINITY or soft >= OPEN_FILES
    hint = "" if good else f"ulimit -n {OPEN_FILES}, or LimitNOFILE={OPEN_FILES} in the systemd unit (the hard limit is {hard})"
    return Check("open files", FILES, good, f"{soft} allowed", hint)


def _site(kit: Kit) -> Iterator[Check]:
    try:
        config = load_site(kit)
    except HansaError as error:
        yield _failed("site.toml", SITE, error)
        return
    yield _settings(kit, config)
    yield _sandbox(kit, config.sandbox, "sandbox in site.toml")


def _sandbox(kit: Kit, mode: sandbox.Mode, where: str) -> Check:
    why = sandbox.fault(mode, kit.folder)
    hint = f'see the message; {where} = "basic" needs nothing of the kernel' if why else ""
    return Check("sandbox", SANDBOX, not why, why or f"{mode} can be had", hint)


def _settings(kit: Kit, config: SiteConfig) -> Check:
    policy = config.policy
    for label, reference in config.data.items():
        file = reference.rpartition(":")[0]
        if is_place(reference) and not (kit.folder / reference).exists():
            return Check("site.toml", SITE, False, f"data {label!r}: there is nothing at {kit.folder / reference}", "mend the path")
        if file.endswith(".py") and not (kit.folder / file).is_file():
            return Check("site.toml", SITE, False, f"data {label!r}: there is no {kit.folder / file}", "put the loader there")
    if not config.data:
        return Check("site.toml", SITE, False, "no data", 'name what jobs may ask for: [data] label = "file.py:function"')
    closed = not (policy.authors or policy.orgs) or not policy.code
    hint = "say whose work may run, and which code: [policy] authors, orgs, code" if closed else ""
    shut = "closed to every job; " if closed else ""
    return Check("site.toml", SITE, True, f"{shut}data: {', '.join(config.data)}", hint)


def _failed(name: str, code: int, error: HansaError) -> Check:
    place = f" ({error.path})" if error.path else ""
    got = f"; got {error.got}" if error.got is not None else ""
    return Check(name, code, False, f"{error.message}{place}{got}", error.hint or "")
