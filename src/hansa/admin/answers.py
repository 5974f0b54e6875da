"""What the server says of runs, sites and their history, as records. Fields that a newer server adds are passed over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from hansa.schema import Misfit

State: TypeAlias = Literal["pending", "running", "paused", "completed", "failed", "aborted", "refused"]
OVER: Final = frozenset({"completed", "failed", "aborted", "refused"})
LIVE: Final = frozenset({"metric", "log"})  # kinds of live lines
_LONG: Final = 100  # characters of a value in an event's line


class Working(msgspec.Struct, frozen=True, kw_only=True):
    """What a site is at: bytes moved and steps taken since the task began, or what it waits for."""

    task: str = ""
    round: int = 0
    bytes: int = 0
    steps: int = 0
    fraction: float | None = None
    waits: str = ""

    def __str__(self) -> str:
        at = f"{self.task} of round {self.round}" if self.round else self.task
        if self.waits:
            return f"{at}: waits ({self.waits})"
        done = "" if self.fraction is None else f", {self.fraction:.0%}"
        return f"{at}: {self.steps:,} steps{done}, {self.bytes:,} bytes"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the server sees it. Times are seconds since 1970; `refused` says why a site does not take part.

    `label`: what people call it. `working`: what its sites are at, by their last heartbeats.
    `waits`: what keeps it from starting, a line each.
    """

    run: str
    job: str
    author: str
    org: str
    state: State
    round: int
    rounds: int
    sites: list[str]
    accepted: list[str]
    refused: dict[str, str]
    min_sites: int
    priority: int
    seed: int
    created: float
    ended: float | None
    reason: str
    metrics: dict[str, float | None]
    job_hash: str
    bundle: str
    label: str = ""
    working: dict[str, Working] = {}
    waits: list[str] = []

    @property
    def over(self) -> bool:
        """Whether the run has ended for good."""
        return self.state in OVER


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A site. `disabled`, `revoked`: why the project does not work with it at present, or any more; `seen`: s since 1970.

    `demands`: what its policy asks of every job. `key`: the thumbprint of the key that its tokens are bound to.
    """

    site: str
    org: str
    online: bool
    disabled: str | None
    revoked: str | None = None
    seen: float | None
    certificate_ends: float | None = None
    key: str = ""
    cores: int = 0
    gpus: int = 0
    memory_bytes: int = 0
    data: dict[str, str] = {}
    demands: list[str] = []
    runs: list[str] = []


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a site's data are what a job takes, as far as their type says; None: the site says nothing of it, and why."""

    site: str
    fits: bool | None
    type: str = ""
    misfits: list[Misfit] = []
    why: str = ""


class Plan(msgspec.Struct, frozen=True):
    """What a run's bundle says of it: its plan as people read it and as its author signed it, its hash, and that of each file."""

    plan: str
    document: dict[str, Any]
    job_hash: str
    reference: str
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened in a run: `kind` as "round" or "task.started", `at` in seconds since 1970.

    The kinds `metric` and `log` are live lines of sites, told once; their `seq` is that of the event before.
    """

    seq: int
    kind: str
    at: float
    data: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(said: Mapping[str, Any]) -> RunEvent:
        """The event in the server's JSON."""
        data = {name: value for name, value in said.items() if name not in ("seq", "kind", "at")}
        return RunEvent(int(said["seq"]), str(said["kind"]), float(said["at"]), data)

    @property
    def record(self) -> dict[str, Any]:
        """The line of metrics.jsonl that a `round` event carries; a null metric is nan."""
        found = dict(self.data.get("record", {}))
        if "global" in found:
            found["global"] = {name: math.nan if value is None else value for name, value in found["global"].items()}
        return found

    def __str__(self) -> str:
        if self.kind in LIVE:
            return self._live_line()
        told = self.record.get("global", {}) if self.kind == "round" else self.data
        if self.kind == "round":
            told = {"round": self.record.get("round"), **told}
        facts = " ".join(f"{name}={_short(value)}" for name, value in told.items() if value not in ("", None, [], {}))
        return f"{datetime.fromtimestamp(self.at, UTC):%H:%M:%S}  {self.kind:<14} {facts}".rstrip()

    def _live_line(self) -> str:
        data = self.data
        step = data.get("step")
        at = {"round": data.get("round"), "step": step if data.get("of") is None else f"{step}/{data['of']}"}
        where = " ".join(f"{name} {value}" for name, value in at.items() if value is not None)
        told = " ".join(f"{name}={_short(value)}" for name, value in data.get("values", {}).items())
        text = _inert(" ".join(str(data[name]) for name in ("level", "logger", "text") if data.get(name)))
        site, task = _inert(str(data.get("site", ""))), _inert(str(data.get("task", "")))
        return f"{datetime.fromtimestamp(self.at, UTC):%H:%M:%S}  {site:<14} {task} {where}  {told or text}".rstrip()


def _inert(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = _inert(text[:_LONG])
    return f"{text}..." if len(str(value)) > _LONG else text


class Runs(msgspec.Struct, frozen=True):
    """All runs."""

    runs: list[Status]


class Sites(msgspec.Struct, frozen=True):
    """All sites."""

    sites: list[Site]


class Happened(msgspec.Struct, frozen=True):
    """Events and live lines, and the numbers to ask with next."""

    events: list[dict[str, Any]]
    after: int
    live: list[dict[str, Any]] = []
    live_after: int | None = None

    def told(self, after: int) -> list[RunEvent]:
        """All of it in the order of time. A live line takes the number of the event before it, `after` if there is none."""
        found = [RunEvent.of(each) for each in self.events]
        lines = sorted(self.live, key=lambda line: float(line["at"]))
        merged: list[RunEvent] = []
        for event in [*found, None]:
            while lines and (event is None or lines[0]["at"] < event.at):
                merged.append(RunEvent.of({**lines.pop(0), "seq": after}))
            if event is not None:
                merged.append(event)
                after = event.seq
        return merged


class File(msgspec.Struct, frozen=True):
    """A file of a run folder."""

    path: str
    bytes: int


class Files(msgspec.Struct, frozen=True):
    """The files of a run folder."""

    files: list[File]
