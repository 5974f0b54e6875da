"""What Hansa and a training script say to each other: JSON lines over a socket pair; arrays pass by file.

Hansa -> script                        script -> Hansa
Do      a task                         Asks    it called receive() and waits
Given   the site's data of a label     Needs   it called data()
Abort   the task is not wanted         Tracked numbers and steps while it works
                                       Sent    the reply stands in its file
                                       Raised  an exception that nobody caught; it ends
When Hansa closes the line there is nothing more to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

LIMIT: Final = 1 << 20  # bytes of a line

Kind: TypeAlias = Literal["weights", "delta"]
Wants: TypeAlias = Literal["params", "metrics", "any"]


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """A line."""


class Do(Line, frozen=True):
    """A task. Its body stands in `task_file`; `wants` says what its reply has to hold."""

    number: int
    name: str
    round: int
    seed: int
    site: str
    slot: int
    sites: int
    job: str
    run: str
    config: dict[str, Any] = {}
    wants: Wants = "any"


class Given(Line, frozen=True):
    """The site's data: at a path of the site's, or as arrays in `data_file`; or why there are none."""

    form: Literal["path", "arrays", "rows", "none"]
    path: str = ""
    why: str = ""


class Abort(Line, frozen=True):
    """The task of that number is not wanted any more."""

    number: int
    reason: str


class Asks(Line, frozen=True):
    """The script waits for a task; `after` is the one that it took last."""

    after: int = 0


class Needs(Line, frozen=True):
    """The script wants the site's data of a label; the job's own where it is empty."""

    label: str = ""


class Tracked(Line, frozen=True):
    """Where training is: numbers (None is one that is not finite), and step `step` of `of`."""

    values: dict[str, float | None] = {}
    step: int | None = None
    of: int | None = None


class Sent(Line, frozen=True):
    """The reply to a task is in `reply_file`: params, metrics, and as headers `kind` and `examples`."""

    number: int


class Raised(Line, frozen=True):
    """An exception ends the script: its type and message in one line, and the traceback from the script's own first line on."""

    message: str
    trace: str


ToScript: TypeAlias = Do | Given | Abort
FromScript: TypeAlias = Asks | Needs | Tracked | Sent | Raised

_ENCODER: Final = msgspec.json.Encoder()
_TO_SCRIPT: Final[msgspec.json.Decoder[ToScript]] = msgspec.json.Decoder(ToScript)
_FROM_SCRIPT: Final[msgspec.json.Decoder[FromScript]] = msgspec.json.Decoder(FromScript)


def encode(message: Line) -> bytes:
    """The message as a line."""
    return _ENCODER.encode(message) + b"\n"


def to_script(line: bytes) -> ToScript:
    """What Hansa said."""
    return _TO_SCRIPT.decode(line)


def from_script(line: bytes) -> FromScript:
    """What a script said, which may be anything.

    Raises:
        msgspec.MsgspecError: it is none of this.
    """
    return _FROM_SCRIPT.decode(line)


def task_file(folder: Path, number: int) -> Path:
    """The body of a task."""
    return folder / f"task-{number}.safetensors"


def reply_file(folder: Path, number: int) -> Path:
    """The reply to it."""
    return folder / f"reply-{number}.safetensors"


def data_file(folder: Path, label: str) -> Path:
    """The arrays of a label."""
    return folder / f"data-{label.encode().hex()}.safetensors"
