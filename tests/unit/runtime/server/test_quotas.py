"""What one party may leave at the server, by hand."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from blake3 import blake3

from hansa.runtime.protocol.messages import Note
from hansa.runtime.server.bells import Bells
from hansa.runtime.server.live import LIMIT, SHARE, Live
from hansa.runtime.server.places import Places
from hansa.runtime.server.quotas import EVENT_S, LinesError, QuotaError, Quotas
from hansa.runtime.store.blobs import FileBlobs


def test_blobs_count_until_something_names_them_or_they_are_swept(tmp_path: Path) -> None:
    quotas, blobs = Quotas(blobs=2, size=100), FileBlobs(tmp_path, reserve_bytes=0)
    there = blobs.put([b"there"]).digest
    gone = blake3(b"gone").hexdigest()
    quotas.send("north", there, 60)
    quotas.send("north", there, 60)  # again the same: once
    with pytest.raises(QuotaError, match="120 bytes"):
        quotas.send("north", gone, 60)
    quotas.send("south", gone, 60)
    quotas.send("north", gone, 40)
    with pytest.raises(QuotaError, match="2 blobs"):
        quotas.send("north", "c" * 64, 0)
    quotas.gone(blobs)
    quotas.send("north", "c" * 64, 40)
    quotas.named("north", there)
    quotas.send("north", "d" * 64, 60)


def test_events_come_back_with_time() -> None:
    quotas = Quotas(events=2)
    for _ in range(2):
        quotas.cause("north", "greetings", now=0.0)
    with pytest.raises(QuotaError, match="ask again in 5 s"):
        quotas.cause("north", "greetings", now=EVENT_S / 2)
    quotas.cause("south", "greetings", now=EVENT_S / 2)
    quotas.cause("north", "greetings", now=EVENT_S)


def test_a_site_that_tells_too_much_of_a_run_is_told_so_and_another_goes_on(tmp_path: Path) -> None:
    live = Live(Places(tmp_path), Bells())
    notes = [Note(run="r", kind="log", at=0.0, text="x" * 1_000) for _ in range(500)]

    async def main() -> tuple[int, int]:
        taken = 0
        with pytest.raises(LinesError, match=f"{SHARE:,} bytes"):  # noqa: PT012  it is not told at the first
            while True:
                await live.add("r", "north", LIMIT // SHARE, notes)
                taken = live.page("r", taken)[1]
        before = (tmp_path / "work" / "r" / "live.jsonl").stat().st_size
        await live.add("r", "south", LIMIT // SHARE, notes)
        return before, (tmp_path / "work" / "r" / "live.jsonl").stat().st_size

    before, after = asyncio.run(main())
    assert SHARE // 2 < before <= SHARE
    assert {line["site"] for line in live.page("r", before)[0]} == {"south"}
    assert after > before
