"""What a site's agent and the worker of a run say to each other: JSON lines over a socket pair; arrays pass by file.

agent -> worker                        worker -> agent
Begin   what the run is; first line    Ready    enclosed, and the job is loaded
Do      a task                         Broken   it could not be; the worker ends
Abort   stop what is being done        Done     what came of the task
                                       Stepped  it goes on
                                       Tracked  numbers that the job's code tells of its work
                                       Logged   a record of its logging
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

LINE_LIMIT: Final = 4 * 1024 * 1024


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line."""


class Begin(Line, frozen=True, tag=True, kw_only=True, omit_defaults=True):
    """The run. Paths are absolute. `data` leads from a label to the loader, relative to `base`, and `places` to a file or folder.

    Without a `reference` there is no job: the worker looks at the data, says of what types they are (with the number of rows, if
    `rows`), and ends. It is bound to `cores`, if there are any, and computes with so many `threads`. `hidden` is the agent's
    own, of which the worker may see `shown`; it writes in `folder`.
    """

    run: str
    site: str
    source: str
    reference: str
    folder: str
    base: str
    data: dict[str, str]
    hidden: list[str]
    shown: list[str]
    sandbox: Literal["strict", "basic", "off"]
    places: dict[str, str] = {}
    memory_bytes: int = 0
    file_bytes: int = 0
    gpus: list[str] = []
    cores: list[int] = []
    threads: int = 1
    rows: bool = False


class Do(Line, frozen=True, tag=True, kw_only=True, omit_defaults=True):
    """A task. `body` and `memory` are files to read; the reply goes to `out`, memory number i to `out` + ".i"."""

    seq: int
    attempt: int
    slot: int
    task: str
    round: int
    seed: int
    population: int
    job: str
    data: str
    body: str
    out: str
    memory: dict[str, str] = {}


class Abort(Line, frozen=True, tag=True, kw_only=True, omit_defaults=True):
    """Stop the task that is being done."""

    reason: str = "aborted"


class Ready(Line, frozen=True, tag=True, kw_only=True, omit_defaults=True):
    """Tasks can come. `types`: of a worker without a job, the types of the site's data by label; "" where that cannot be said."""

    types: dict[str, str] = {}


class Broken(Line, frozen=True, tag=True, kw_only=True, omit_defaults=True):
    """The worker cannot work: the sandbox cannot be had, or the job does not load."""

    code: str
    message: str
    trace: str = ""


class Done(Line, frozen=True, tag=True, kw_only=True, omit_defaults=True):
    """A task ended: with a reply, and the names of what the site is to remember; or with a failure, whose `code` is set."""

    seq: int
    attempt: int
    seconds: float = 0.0
    memory: list[str] = []
    code: str = ""
    message: str = ""
    path: str | None = None
    trace: str = ""


class Stepped(Line, frozen=True, tag=True, kw_only=True, omit_defaults=True):
    """So many steps were taken of the task that is being done; `fraction` of it is done, where the job's code says so."""

    steps: int
    fraction: float | None = None


class Tracked(Line, frozen=True, tag=True, kw_only=True, omit_defaults=True):
    """Numbers of one moment of the task that is being done. What is not finite comes as null."""

    values: dict[str, float | None]
    step: int | None = None
    of: int | None = None


class Logged(Line, frozen=True, tag=True, kw_only=True, omit_defaults=True):
    """A record of Python's logging, formatted."""

    level: str
    logger: str
    text: str


ToWorker: TypeAlias = Begin | Do | Abort
Live: TypeAlias = Stepped | Tracked | Logged  # what comes while a task is being done
FromWorker: TypeAlias = Ready | Broken | Done | Live

_TO_WORKER: Final[msgspec.json.Decoder[ToWorker]] = msgspec.json.Decoder(ToWorker)
_FROM_WORKER: Final[msgspec.json.Decoder[FromWorker]] = msgspec.json.Decoder(FromWorker)


def to_line(message: Line) -> bytes:
    """The message as a line."""
    return msgspec.json.encode(message) + b"\n"


def to_worker(line: bytes) -> ToWorker:
    """What the agent said."""
    return _TO_WORKER.decode(line)


def from_worker(line: bytes) -> FromWorker:
    """What a worker said, which may be anything.

    Raises:
        msgspec.MsgspecError: it is none of this.
    """
    return _FROM_WORKER.decode(line)
