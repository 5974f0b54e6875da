"""Where a server keeps what."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from hansa.files import storage_error

LIVE_LIMIT: Final = 16 * 1024 * 1024  # bytes of live lines that are kept of one run


@dataclass(frozen=True, slots=True)
class Places:
    """The files below a server's data folder."""

    root: Path

    @property
    def events(self) -> Path:
        """The event store."""
        return self.root / "events.sqlite"

    @property
    def blobs(self) -> Path:
        """The blobs."""
        return self.root / "blobs"

    def folder(self, run: str) -> Path:
        """The run's folder, which people download."""
        return self.root / "runs" / run

    def work(self, run: str) -> Path:
        """What only the server needs of a run: its source, its log."""
        return self.root / "work" / run

    def remove(self, run: str) -> None:
        """Remove a run's folders."""
        for folder in (self.folder(run), self.work(run)):
            shutil.rmtree(folder, ignore_errors=True)

    def note(self, run: str, line: Mapping[str, Any]) -> None:
        """Add a live line to the run's folder, as long as there are not too many."""
        path = self.folder(run) / "live.jsonl"
        try:
            with path.open("ab") as file:
                if file.tell() < LIVE_LIMIT:
                    file.write(msgspec.json.encode(line) + b"\n")
        except OSError as error:
            raise storage_error(error, path) from error
