"""Live lines leave in messages that the server takes, whatever the lines hold."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.unit.runtime.transport.peers import Behaviour, credentials, make_kits, peer, site_kit

from hansa.runtime.client.live import Live
from hansa.runtime.config import load_kit
from hansa.runtime.protocol.messages import JSON_LIMIT, NOTE_TEXT
from hansa.runtime.transport.http import Connection


def test_lines_of_any_letters_leave_in_messages_that_the_server_takes(tmp_path: Path) -> None:
    kits, how = make_kits(tmp_path), Behaviour()

    async def work(address: str) -> None:
        async with Connection(credentials(site_kit(kits), address), retry=False) as connection:
            live = Live(connection, "run", tmp_path / "log")
            live.kinds = ["logs"]
            for _ in range(400):
                live.printed("\x1b" * NOTE_TEXT)  # six bytes each in JSON
            await live.flush()

    with peer(load_kit(kits / "server"), how) as address:
        asyncio.run(work(address))
    assert len(how.posted) > 2
    assert max(how.posted) <= JSON_LIMIT
