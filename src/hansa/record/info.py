"""run.json: what ran, with what, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from hansa.errors import InputError, StorageError, VersionError
from hansa.files import storage_error

FORMAT: Final = 1
MOST_NAMES: Final = 10_000  # sites of which run.json lists the names; beyond, their number

State: TypeAlias = Literal["pending", "running", "paused", "completed", "failed", "aborted", "refused"]
Metrics: TypeAlias = dict[str, float | None]


class Reference(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How the job is loaded again: a job file or "file.py:name", with its overrides and the folder of larger data.

    `init` is the model it started from, `dropout` the faults it was simulated with; the others are the simulation's settings, which
    a resumed run keeps.
    """

    path: str
    overrides: list[str] = []
    folder: str | None = None
    init: str | None = None
    dropout: float = 0.0
    keep_updates: bool = False
    deterministic: bool = True
    checkpoint_every: int = 1


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The content of run.json.

    `slots` are the sites' names by slot, or their number when there are more than 10,000. `rounds` is how many the job asks for.
    `settings` is the resolved configuration, nested. `started` and `finished` are UTC times in ISO 8601. `error` is why a
    run failed.
    """

    id: str
    job: str
    job_hash: str = ""
    reference: Reference | None = None
    settings: dict[str, Any] = {}
    plan: str = ""
    seed: int = 0
    slots: list[str] | int = []
    engine: str = "loop"
    workers: int = 1
    threads: int = 1
    deterministic: bool = True
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}
    state: State = "pending"
    rounds: int = 0
    started: str = ""
    finished: str | None = None
    error: str | None = None
    summary: dict[str, Any] = {}
    format: int = FORMAT

    @property
    def sites(self) -> int:
        """How many sites the job has."""
        return self.slots if isinstance(self.slots, int) else len(self.slots)


class _Version(msgspec.Struct):
    format: int


def encode(info: RunInfo) -> bytes:
    """run.json's bytes: indented, so that people can read them."""
    if not isinstance(info.slots, int) and len(info.slots) > MOST_NAMES:
        info = msgspec.structs.replace(info, slots=len(info.slots))
    return msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n"


def read(path: Path) -> RunInfo:
    """The run.json at `path`.

    Raises:
        InputError: there is no such file: the folder is not a run. VersionError: a newer Hansa wrote it.
        StorageError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError("not a run folder: it has no run.json", path=str(path.parent), hint="see `hansa runs list`") from None
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        version = msgspec.json.decode(data, type=_Version).format
        if version > FORMAT:
            raise VersionError(
                "the run folder was written by a newer Hansa",
                path=str(path.parent),
                got=f"format {version}",
                expected=f"format {FORMAT} or older",
                hint="upgrade with `pip install -U hansa`",
            )
        return msgspec.json.decode(data, type=RunInfo)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StorageError(f"run.json cannot be read: {error}", path=str(path)) from error
