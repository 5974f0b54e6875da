"""Where a site's agent keeps what: all below `state` in the kit's folder, for its owner's eyes alone."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from hansa.errors import InputError
from hansa.files import storage_error, write_atomic
from hansa.runtime.config import SECRET_FILES, Kit
from hansa.runtime.protocol.messages import Ended

_RUN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the site has seen of its server: the starts that it counts, and its newest event."""

    epoch: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """The files of one run. The worker writes in `work` alone."""

    folder: Path

    @property
    def bundle(self) -> Path:
        """The job as it came."""
        return self.folder / "bundle.zip"

    @property
    def source(self) -> Path:
        """The job's files."""
        return self.folder / "source"

    @property
    def work(self) -> Path:
        """The worker's own folder."""
        return self.folder / "work"

    @property
    def blobs(self) -> Path:
        """Bodies, results and memories."""
        return self.folder / "blobs"

    @property
    def ended(self) -> Path:
        """What the server said when the run ended."""
        return self.folder / "ended.json"


@dataclass(frozen=True, slots=True)
class Places:
    """The files of an agent."""

    kit: Kit

    @property
    def state(self) -> Path:
        """The agent's own folder."""
        return (self.kit.folder / "state").absolute()

    @property
    def approvals(self) -> Path:
        """What a person here has said of code."""
        return self.state / "approvals"

    @property
    def outbox(self) -> Path:
        """Results and memories."""
        return self.state / "outbox.sqlite"

    @property
    def hidden(self) -> list[str]:
        """What no worker may see."""
        return [str(self.state), *(str((self.kit.folder / name).absolute()) for name in SECRET_FILES)]

    def make(self) -> None:
        """Make the folders.

        Raises:
            StorageError: they cannot be made.
        """
        try:
            for folder in (self.state, self.state / "runs", self.state / "logs", self.state / "models"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self.state) from error

    def room(self, run: str) -> Room:
        """The run's files.

        Raises:
            InputError: the run's name cannot be a folder's.
        """
        return Room(self.state / "runs" / _named(run))

    def enter(self, run: str) -> Room:
        """The run's files, in folders that are made if need be."""
        room = self.room(run)
        try:
            for folder in (room.folder, room.work, room.blobs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, room.folder) from error
        return room

    def log(self, run: str) -> Path:
        """What the run's worker prints."""
        return self.state / "logs" / f"{_named(run)}.log"

    def model(self, run: str, name: str, folder: str) -> Path:
        """A model of a run that has ended, below a folder of the kit's or any other."""
        return (self.kit.folder / folder).absolute() / _named(run) / f"{_named(name)}.safetensors"

    def leave(self, run: str) -> None:
        """Remove the run's files."""
        shutil.rmtree(self.room(run).folder, ignore_errors=True)

    def ended(self) -> Iterator[Ended]:
        """The runs that have ended and are not put away yet."""
        for path in sorted((self.state / "runs").glob("*/ended.json")):
            with contextlib.suppress(OSError, msgspec.MsgspecError):  # half a file would be of another writer than ours
                yield msgspec.json.decode(path.read_bytes(), type=Ended)

    def remember_end(self, ended: Ended) -> None:
        """Keep what the server says once."""
        write_atomic(self.enter(ended.run).ended, [msgspec.json.encode(ended)])

    @property
    def seen(self) -> Seen:
        """What was seen of the server."""
        try:
            return msgspec.json.decode((self.state / "seen.json").read_bytes(), type=Seen)
        except (FileNotFoundError, msgspec.MsgspecError):
            return Seen()

    def see(self, seen: Seen) -> None:
        """Keep it; not worth an fsync: an older one raises no false alarm."""
        part = self.state / "seen.json.part"
        try:
            part.write_bytes(msgspec.json.encode(seen))
            part.replace(self.state / "seen.json")
        except OSError as error:
            raise storage_error(error, part) from error


def _named(name: str) -> str:
    if not _RUN.fullmatch(name):
        raise InputError("not the name of a run", got=repr(name)[:200])
    return name
