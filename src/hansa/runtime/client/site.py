"""What the parts of an agent share: the kit, the connection, the stores, and the site's settings as they are now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509

from hansa.document import Document
from hansa.errors import ConfigError, HansaError
from hansa.runtime.authz.author import check_author
from hansa.runtime.authz.policy import Policy
from hansa.runtime.client import approvals
from hansa.runtime.client.environments import LackError, interpreter, require
from hansa.runtime.client.leases import Leases, beyond
from hansa.runtime.client.leaving import demanded
from hansa.runtime.client.outbox import Outbox
from hansa.runtime.client.places import Places
from hansa.runtime.client.policy import Asked, Decision, code_hash, decide
from hansa.runtime.config import SITE_FILE, Kit, SiteConfig, load_site
from hansa.runtime.manifest import Manifest
from hansa.runtime.transport.http import Connection

LOOK_S: Final = 2.0  # between two looks at what people write, while something waits for it


@dataclass
class Site:
    """A site at work. `roster` is the newest policy document of the project that it has.

    inside: the bytes of blobs that messages to and from this server may carry.
    """

    kit: Kit
    ca: x509.Certificate
    roster: Policy
    places: Places
    outbox: Outbox
    connection: Connection
    environment: Mapping[str, str] = field(repr=False)
    leases: Leases
    inside: int = 0
    _read: tuple[tuple[int, int, int], SiteConfig] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The site's name."""
        return self.kit.name

    def config(self) -> SiteConfig | None:
        """site.toml as it is now; None if it is missing or malformed: then the site does nothing."""
        try:
            found = (self.kit.folder / SITE_FILE).stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if self._read is None or self._read[0] != stamp:
                self._read = (stamp, load_site(self.kit))
        except (ConfigError, OSError):
            self._read = None
        return None if self._read is None else self._read[1]

    async def until_changed(self, most_s: float) -> None:
        """Return when the site's settings, or what a person here has said, are others than they were; or the time is over."""
        before, ends = self._stamp(), time.monotonic() + most_s
        while (left := ends - time.monotonic()) > 0 and self._stamp() == before:
            await asyncio.sleep(min(LOOK_S, left))  # files that people write tell nobody

    def _stamp(self) -> tuple[int, ...]:
        """Changes with the files that people write."""
        files = (self.kit.folder / SITE_FILE, self.places.approvals)
        return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in files)

    def _lack(self, config: SiteConfig, manifest: Manifest) -> tuple[str, str] | None:
        """The code and the reason of what the job needs and this machine does not have, or never gives to one run."""
        if why := beyond(config.resources, manifest):
            return "resources", why
        try:
            demanded(config.policy)
            require(interpreter(config.environments, manifest.environment, self.kit.folder), tuple(manifest.requires))
        except (LackError, ConfigError) as error:
            return error.code, error.message
        return None

    def decide(self, manifest: Manifest, plan: Document, *, population: int | None = None, task: str = "") -> Decision:
        """Whether the site takes part in the job now. The author's signature is checked here, whatever the server says."""
        config = self.config()
        try:
            author = check_author(manifest, ca=self.ca, policy=self.roster, now=time.time())
        except HansaError as error:
            return Decision("refuse", error.code, error.message)
        told = approvals.said(self.places, code_hash(manifest))
        asked = Asked(
            author=author.name,
            org=author.org,
            project=self.kit.project,
            manifest=manifest,
            population=population,
            here=() if config is None else tuple(config.data),
            collected=plan.collected,
            task=task,
            lack=None if config is None else self._lack(config, manifest),
            said=None if told is None else (told.verdict, told.reason),
        )
        return decide(None if config is None else config.policy, asked, datetime.now())  # a policy's hours are local
