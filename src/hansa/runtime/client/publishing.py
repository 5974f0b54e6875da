"""What a site says of its data before any job: their types, made by its own loaders in a worker of its own, never the data."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import sys
from pathlib import Path
from typing import Final

from hansa.errors import HansaError
from hansa.runtime.client.channel import Begin
from hansa.runtime.client.child import Worker
from hansa.runtime.client.live import Live
from hansa.runtime.client.site import Site
from hansa.runtime.config import SiteConfig, is_place

IDLE_S: Final = 2.0  # that a site has had nothing to do, before it looks at its data: jobs come first
LOOK_AGAIN_S: Final = 24 * 3_600.0  # unless site.toml changes
_NAME: Final = "types"  # of the worker's log
_LOG: Final = logging.getLogger("hansa.site")


async def types_of(site: Site) -> dict[str, str]:
    """The types of the site's data by label, as site.toml permits; "" where they are not known. Its log says why one is not."""
    config = site.config()
    if config is None or not config.publish.types or not config.data:
        return {}
    folder = site.places.state / f"{_NAME}.{secrets.token_hex(4)}"
    live = Live(site.connection, _NAME, site.places.log(_NAME))
    worker = Worker(_begin(site, config, folder), live, site.environment, Path(sys.executable))
    try:
        folder.mkdir(mode=0o700)
        return (await worker.start()).types
    except (HansaError, OSError) as error:  # a site that cannot say it works nevertheless
        _LOG.warning("types.unknown why=%r", str(error))
        return {}
    finally:
        await worker.close()
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _begin(site: Site, config: SiteConfig, folder: Path) -> Begin:
    base = site.kit.folder.absolute()
    return Begin(
        run=_NAME,
        site=site.name,
        source=str(folder),
        reference="",
        folder=str(folder),
        base=str(base),
        data={label: named for label, named in config.data.items() if not is_place(named)},
        places={label: str(base / named) for label, named in config.data.items() if is_place(named)},
        hidden=site.places.hidden,
        shown=[str(folder)],
        sandbox=config.sandbox,
        memory_bytes=config.resources.memory_mb << 20,
        rows=config.publish.rows,
    )
