"""What the server keeps of a run, of its steps, and of a site, as the fold of its events (`state`) leaves it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import msgspec

from hansa.runtime.jobs.link import Came, Close
from hansa.runtime.protocol.messages import Assignment, Ended, Hello, NotCounted, Offer

PROJECT: Final = "project"
RunState: TypeAlias = Literal["pending", "running", "paused", "completed", "failed", "aborted", "refused"]
OVER: Final = frozenset({"completed", "failed", "aborted", "refused"})


def stream_of(run: str) -> str:
    """The stream of a run's events."""
    return f"run/{run}"


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """What was submitted, and by whom: the data of `run.submitted`."""

    run: str
    job: str
    author: str
    org: str
    bundle: str
    bundle_bytes: int
    data: str
    job_hash: str
    reference: str
    seed: int
    sites: list[str]
    min_sites: int
    priority: int
    progress_s: float | None = None
    cores: int = 1
    gpus: int = 0
    memory_mb: int = 0
    request: str = ""  # the submitter's own name for it, so that it can be sent again
    label: str = ""  # what people call it


@dataclass
class Asked:
    """What one site was asked in one step: its newest attempt, and what came of it. `item` is the event that told the site."""

    slot: int
    attempt: int
    item: int
    state: Literal["out", "answered", "lost", "cancelled"] = "out"
    blob: str | None = None
    dropped: bool = False  # the site was told that its answer did not count


@dataclass
class Step:
    """One numbered task of a run. `came` is in the order of the commits."""

    seq: int
    task: str
    round: int
    body: str
    body_bytes: int
    deadline_s: float | None
    opened_at: float
    slots: tuple[int, ...]
    asked: dict[int, Asked] = field(default_factory=dict)
    came: list[Came] = field(default_factory=list)
    closed: Close | None = None

    @property
    def blobs(self) -> set[str]:
        """The digests of its body and of what came."""
        return {self.body, *(came.blob for came in self.came if came.blob is not None)}

    def same(self, other: tuple[str, int, str, tuple[int, ...]]) -> bool:
        """Whether the workflow asks for the same again."""
        return (self.task, self.round, self.body, self.slots) == other


@dataclass
class Run:
    """A run. `answers`: what each site said to the offer, "" if yes. `floor`: the steps up to it lie behind a checkpoint.

    `behind`: the steps up to it lie behind the checkpoint before, too, which serves if the last one turns out to be damaged.
    `newest`: the newest result of each slot as (seq, attempt, blob), which is known when its step is forgotten.
    """

    what: Submitted
    created: float
    state: RunState = "pending"
    reason: str = ""
    ended: float | None = None
    round: int = 0
    rounds: int = 0
    floor: int = 0
    behind: int = 0
    restarts: int = 0
    metrics: dict[str, float | None] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    began: set[str] = field(default_factory=set)  # sites that have taken a first task
    contributed: set[str] = field(default_factory=set)  # sites of which a result was admitted: the models are theirs, too
    newest: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    offered: bool = False
    steps: dict[int, Step] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    deleted: bool = False

    @property
    def id(self) -> str:
        """The run's name."""
        return self.what.run

    @property
    def over(self) -> bool:
        """Whether it has ended for good."""
        return self.state in OVER

    @property
    def accepted(self) -> list[str]:
        """The sites that take part."""
        return [site for site in self.what.sites if self.answers.get(site) == ""]

    def slot_of(self, site: str) -> int | None:
        """The site's place in the run; None if it is none of its sites."""
        return self.what.sites.index(site) if site in self.what.sites else None


Item: TypeAlias = Offer | Assignment | Ended | NotCounted


@dataclass
class Site:
    """What is new for a site, by the event that made it so; and whether the project works with it at present."""

    name: str
    items: dict[int, Item] = field(default_factory=dict)
    disabled: str | None = None
    hello: Hello | None = None
    certified: float | None = None  # until when the certificate is good that it got from here
