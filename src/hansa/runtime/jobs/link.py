"""What the server and a run's process say to each other: JSON lines over a socket pair.

    run -> server                          server -> run
    Ready    rounds, loaded                Start   all that the run needs; the first line
    Open     the next step's task          Step    new, open since, or closed with what came of it
    Assign   ask a site once more          Came    a committed result, or a committed loss; in the order of the commits
    Close    what came of the step         Stop    the run is to end now
    Drop     admitted, but not added
    Report   a line of metrics.jsonl
    Saved    a checkpoint is durable
    Done     the last line

The steps of a run are numbered by its workflow. A restarted run asks again with the same numbers, and gets the committed results,
in order and with the times they had: so its round engine decides what it decided before.
"""

from __future__ import annotations

import select
import socket
from typing import Any, Final, Literal, TypeAlias

import msgspec

from hansa.core.task import Failure
from hansa.errors import StorageError

LINE_LIMIT: Final = 16 * 1024 * 1024  # bytes: the records of 10,000 sites have 2 MB


Ending: TypeAlias = Literal["pending", "running", "paused", "completed", "failed", "aborted", "refused"]


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """A message of the link."""


class Ready(Line, frozen=True):
    """The job is loaded; it has so many rounds (0: it does not say)."""

    rounds: int
    restored: int = 0  # the round of the checkpoint that it goes on from


class Open(Line, frozen=True):
    """The next step: the task, the digest of its body, and whom to ask (attempt 1 each)."""

    seq: int
    task: str
    round: int
    body: str
    body_bytes: int
    slots: list[int]
    deadline_s: float | None = None


class Assign(Line, frozen=True):
    """Ask these sites again: (slot, attempt)."""

    seq: int
    again: list[tuple[int, int]]


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was counted of one site: a slot, with the attempt that was admitted, or why there is none."""

    slot: int
    attempt: int = 0
    failure: Failure | None = None


class Close(Line, frozen=True):
    """The step has ended. `abandoned`: too few sites answered, and why; `hint` is the first site's reason."""

    seq: int
    admitted: list[Verdict] = []
    refused: list[Verdict] = []
    lost: list[Verdict] = []
    abandoned: str | None = None
    hint: str | None = None
    bytes_up: int = 0
    bytes_down: int = 0


class Drop(Line, frozen=True):
    """Replies that the closed step had admitted and that could not be added after all: slots, with the reason."""

    seq: int
    dropped: list[Verdict]


class Report(Line, frozen=True):
    """A line of metrics.jsonl."""

    record: dict[str, Any]


class Saved(Line, frozen=True):
    """A checkpoint after `round` is on disk: no step up to `seq` is asked for again."""

    round: int
    seq: int


class Done(Line, frozen=True):
    """How the run ended. `models`: "final", "best" -> digest."""

    state: Literal["completed", "failed"]
    reason: str = ""
    code: str = ""
    models: dict[str, str] = {}
    model_bytes: dict[str, int] = {}


class Start(Line, frozen=True):
    """All that a run needs: where its bundle is extracted and its run folder is, whom it asks, and its seed.

    It opens blobs in `blobs`, and leaves its own in `handed`; it writes in its run folder and in `room`, and sees none of `hidden`.
    """

    run: str
    reference: str
    source: str  # folder
    folder: str
    blobs: str  # folder
    room: str  # folder
    handed: str  # folder
    sites: list[str]
    seed: int
    submitted: float  # seconds since 1970
    sandbox: Literal["strict", "basic", "off"] = "strict"
    hidden: list[str] = []
    memory_bytes: int = 0
    file_bytes: int = 0
    ended: Ending | None = None  # nothing is to be run any more: how it ended, and why, is to stand in the run folder
    reason: str = ""


class Came(Line, frozen=True):
    """A site's committed answer: a blob, or the failure in its place; `lost`: it was given up. `at` as Step's times."""

    seq: int
    slot: int
    attempt: int
    at: float
    blob: str | None = None
    blob_bytes: int = 0
    failure: Failure | None = None
    lost: bool = False


class Step(Line, frozen=True):
    """What the server knows of a step: since when it is open, by its own clock (`now`), and what was committed so far.

    `differs`: the workflow asked for something else before; `closed`: how it has ended. `last` is the highest step that is known.
    """

    seq: int
    opened_at: float
    now: float
    last: int
    differs: str | None = None
    closed: Close | None = None
    came: list[Came] = []


class Stop(Line, frozen=True):
    """The run is to end now."""

    reason: str


FromRun: TypeAlias = Ready | Open | Assign | Close | Drop | Report | Saved | Done
FromServer: TypeAlias = Start | Step | Came | Stop

_ENCODER: Final = msgspec.json.Encoder()
_FROM_RUN: Final = msgspec.json.Decoder(FromRun)
_FROM_SERVER: Final[msgspec.json.Decoder[FromServer]] = msgspec.json.Decoder(FromServer)


def encode(line: Line) -> bytes:
    """The message as one line."""
    return _ENCODER.encode(line) + b"\n"


def from_run(line: bytes) -> FromRun:
    """The run's message in a line.

    Raises:
        msgspec.ValidationError: it is none.
    """
    message: FromRun = _FROM_RUN.decode(line)
    return message


class Link:
    """The run's end of the socket pair. It blocks; one thread uses it."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket, self._buffer = ours, bytearray()

    def send(self, line: FromRun) -> None:
        """Send a message.

        Raises:
            StorageError: the server has gone.
        """
        try:
            self._socket.sendall(encode(line))
        except OSError as error:
            raise _gone() from error

    def receive(self, timeout_s: float | None = None) -> FromServer | None:
        """The next message; None when there was none for `timeout_s`.

        Raises:
            StorageError: the server has gone.
        """
        while (end := self._buffer.find(b"\n")) < 0:
            if timeout_s is not None and not select.select([self._socket], [], [], max(0.0, timeout_s))[0]:
                return None
            try:
                data = self._socket.recv(1 << 16)
            except OSError as error:
                raise _gone() from error
            if not data:
                raise _gone()
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return _FROM_SERVER.decode(line)


class ServerGone(StorageError):
    """The server's process has ended; it will start this run again."""

    code = "server_gone"


def _gone() -> ServerGone:
    return ServerGone("the server has gone", hint="it goes on with the run when it is started again")
