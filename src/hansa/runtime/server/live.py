"""The live lines of runs: numbers and log lines that sites let out while they work. A bounded file a run, no events."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from hansa.files import storage_error
from hansa.runtime.protocol.messages import Note
from hansa.runtime.server.bells import Bells
from hansa.runtime.server.places import Places
from hansa.runtime.server.quotas import LinesError

LIMIT: Final = 16 << 20  # bytes that are kept of one run
SHARE: Final = 1 << 20  # bytes that any one site may always have of it, since the server started
NUMBERS: Final = 64  # names of a site's numbers of which the newest is known
PAGE: Final = 256 * 1024  # bytes of one answer


class Live:
    """Keeps the lines, and the newest numbers of each site in runs that go on. `bells` ring `live/RUN` when there are more."""

    def __init__(self, places: Places, bells: Bells) -> None:
        self._places, self._bells = places, bells
        self._sizes: Counter[tuple[str, str]] = Counter()
        self._writing = asyncio.Lock()
        self.newest: dict[tuple[str, str], dict[str, float]] = {}

    async def add(self, run: str, site: str, sites: int, notes: Sequence[Note]) -> None:
        """Keep a site's lines of a run that has so many sites, as long as neither has had too many.

        Raises:
            LinesError: the site has had its share, or the run has all that is kept of one. StorageError: they cannot be written.
        """
        lines = b"".join(msgspec.json.encode(_line(site, note)) + b"\n" for note in notes)
        share = max(SHARE, LIMIT // max(1, sites))
        if self._sizes[run, site] + len(lines) > share:
            hint = "the site's own log has them all, up to 16 MiB; let the job tell less often"
            raise LinesError("too many live lines of one site in a run", run=run, site=site, expected=f"{share:,} bytes", hint=hint)
        self._sizes[run, site] += len(lines)
        for note in notes:
            found = {name: value for name, value in note.values.items() if value is not None}
            table = self.newest.setdefault((run, site), {})
            table.update({name: value for name, value in found.items() if name in table or len(table) < NUMBERS})
        async with self._writing:
            await asyncio.to_thread(_append, self._places.live(run), lines)
        self._bells.ring(f"live/{run}")

    def page(self, run: str, after: int) -> tuple[list[dict[str, Any]], int]:
        """The lines from byte `after` on, and where they end; not all of them, if they are many."""
        path = self._places.live(run)
        try:
            with path.open("rb") as file:
                file.seek(after)
                content = file.read(PAGE)
        except FileNotFoundError:
            return [], after
        except OSError as error:
            raise storage_error(error, path) from error
        whole = content[: content.rfind(b"\n") + 1]
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in whole.splitlines()], after + len(whole)

    def forget(self, run: str) -> None:
        """A run has ended: its numbers are no news any more."""
        for table in (self.newest, self._sizes):
            for key in [key for key in table if key[0] == run]:
                del table[key]


def _line(site: str, note: Note) -> dict[str, Any]:
    """The line as live.jsonl has it: what is empty is left out."""
    told = {name: value for name, value in msgspec.structs.asdict(note).items() if value not in ("", None, {})}
    del told["run"]
    return {"site": site, **told}


def _append(path: Path, lines: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            if file.tell() + len(lines) <= LIMIT:
                file.write(lines)
    except OSError as error:
        raise storage_error(error, path) from error
