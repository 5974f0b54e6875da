"""Where a server keeps what."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hansa.runtime.config import EVENTS_FILE

LIVE: Final = "live.jsonl"


@dataclass(frozen=True, slots=True)
class Places:
    """The files below a server's data folder."""

    root: Path

    @property
    def events(self) -> Path:
        """The event store."""
        return self.root / EVENTS_FILE

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

    def room(self, run: str) -> Path:
        """Where the process of a run may write, besides the run's folder."""
        return self.work(run) / "room"

    def handed(self, run: str) -> Path:
        """The blobs that the process of a run hands over. It can put a link into this folder, but none in its place."""
        return self.work(run) / "handed"

    def remove(self, run: str) -> None:
        """Remove a run's folders."""
        for folder in (self.folder(run), self.work(run)):
            shutil.rmtree(folder, ignore_errors=True)

    def live(self, run: str) -> Path:
        """The live lines of a run; they are in the run's folder, too, when its process has ended."""
        return self.work(run) / LIVE
