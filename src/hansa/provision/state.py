"""What provisioning remembers, in `state/roster.json`: members, revocations, serial numbers and tickets. One process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from hansa.errors import CheckpointError, ConfigError, InputError, VersionError
from hansa.files import storage_error, write_atomic
from hansa.provision.project import Project
from hansa.runtime.authz.enrolment import Ticket
from hansa.runtime.authz.policy import Member, Policy, Revoked

FORMAT: Final = 1
_FILE = "roster.json"


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that was made here. Those that the server makes for sites, its own log knows."""

    serial: str
    name: str
    kind: str
    generation: int
    until: float


class Roster(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a project but its secrets. Each change makes the next `version`."""

    format: int = FORMAT
    project: Project
    version: int
    issued: float
    members: tuple[Member, ...]
    revoked: tuple[Revoked, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    tickets: tuple[Ticket, ...] = ()

    @property
    def policy(self) -> Policy:
        """The document for everybody."""
        return Policy(
            project=self.project.name,
            version=self.version,
            issued=self.issued,
            members=self.members,
            revoked=self.revoked,
            rules=self.project.policy,
        )

    @property
    def first_admin(self) -> str | None:
        """Whose kit stands as kits/admin as well: the first project_admin that is not revoked."""
        gone = {entry.name for entry in self.revoked}
        return next((m.name for m in self.members if m.role == "project_admin" and m.name not in gone), None)

    def is_revoked(self, name: str) -> bool:
        """Whether the name is revoked for good."""
        return any(entry.name == name for entry in self.revoked)


def load_roster(folder: Path) -> Roster | None:
    """The roster in a state folder; None if nothing was provisioned there.

    Raises:
        VersionError: a newer Hansa wrote it. CheckpointError: it cannot be read.
    """
    path = folder / _FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        roster = msgspec.json.decode(content, type=Roster)
    except msgspec.DecodeError as error:
        raise CheckpointError(f"the roster cannot be read: {error}", path=str(path), hint="restore it from its backup") from error
    if roster.format > FORMAT:
        raise VersionError("a newer Hansa wrote the roster", path=str(path), got=roster.format, expected=FORMAT)
    return roster


def save_roster(folder: Path, roster: Roster) -> None:
    """Store the roster, whole or not at all."""
    write_atomic(folder / _FILE, [msgspec.json.format(msgspec.json.encode(roster), indent=1), b"\n"])


@contextmanager
def office(folder: Path, *, new: bool = False) -> Iterator[Path]:
    """The state folder of a provisioning folder, for this process alone; with `new`, it is made if it is not there.

    Raises:
        InputError: nothing was provisioned there. ConfigError: another `hansa provision` is at work in it.
    """
    state = folder / "state"
    if not new and not (state / _FILE).is_file():
        hint = "name it with --dir DIR; hansa provision project.toml --out DIR makes one"
        raise InputError("not a provisioning folder", path=str(folder), hint=hint)
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (state / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError("another `hansa provision` is at work here", path=str(folder), hint="wait for it") from None
            yield state
    except OSError as error:
        raise storage_error(error, state) from error
