"""What the REST API says: the JSON of requests and answers, and how runs and sites are shown."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from hansa.document import Document
from hansa.runtime.authz.policy import Member, Revoked
from hansa.runtime.protocol.messages import Progress
from hansa.runtime.server.known import Run
from hansa.runtime.server.presence import Presence
from hansa.runtime.server.state import Book
from hansa.runtime.store.event import Event

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$")]

Label = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9._-]{0,63}$")]


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job to run. Left out, `sites` are all of the project, `min_sites` all of those, `seed` is the job's.

    `request` is the sender's own name for it (32 hex digits, say): sent again with it, the run that was made is the answer.
    `label` is what people call it; several runs may have one.
    """

    bundle: Digest
    seed: int | None = None
    sites: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=100_000)] | None = None
    min_sites: Annotated[int, msgspec.Meta(ge=1)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    request: Annotated[str, msgspec.Meta(max_length=64)] = ""
    label: Label = ""


class Reason(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why something is done."""

    reason: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run. Times are seconds since 1970. `working`: what its sites are at, as their last heartbeats said.

    `waits`: what keeps it from starting, a line each.
    """

    run: str
    job: str
    author: str
    org: str
    state: str
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
    working: dict[str, Progress] = {}
    waits: list[str] = []


class RunList(msgspec.Struct, frozen=True):
    """All runs, the oldest first."""

    runs: list[RunView]


class EventList(msgspec.Struct, frozen=True):
    """Events of a run, and the number to ask with next; live lines and theirs, if they were asked for."""

    events: list[dict[str, Any]]
    after: int
    live: list[dict[str, Any]] = []
    live_after: int | None = None


class FileView(msgspec.Struct, frozen=True):
    """A file of a run folder."""

    path: str
    bytes: int


class FileList(msgspec.Struct, frozen=True):
    """The files of a run folder."""

    files: list[FileView]


class PlanView(msgspec.Struct, frozen=True):
    """What runs and what leaves, as the bundle has it: for people, and as its author signed it; `files` are SHA-256 by path."""

    plan: str
    document: Document
    job_hash: str
    reference: str
    files: dict[str, str]


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    """A site. `seen`: when it was last heard of, in seconds since 1970; None if it was not since the server started.

    `certificate_ends`: when its certificate does, as far as is known. `revoked`: why it is shut out for good, None if it is not.
    `key`: the thumbprint (RFC 7638) of the key that its tokens are bound to, as it last asked for one.
    """

    site: str
    org: str
    online: bool
    disabled: str | None
    revoked: str | None
    seen: float | None
    certificate_ends: float | None = None
    key: str = ""
    cores: int = 0
    gpus: int = 0
    memory_bytes: int = 0
    data: dict[str, str] = {}
    demands: list[str] = []
    runs: list[str] = []


class SiteList(msgspec.Struct, frozen=True):
    """The sites of the roster."""

    sites: list[SiteView]


class Audit(msgspec.Struct, frozen=True):
    """Events as they are chained, and the number to ask with next; `streams` are all there are."""

    streams: list[str]
    events: list[Event]
    after: int


class Health(msgspec.Struct, frozen=True):
    """The server is up."""

    status: str
    project: str
    version: str
    time: float


def run_view(run: Run, working: dict[str, Progress], waits: list[str]) -> RunView:
    """The run as people see it, what its sites are at, and what it waits for before it starts."""
    what = run.what
    return RunView(
        run=what.run,
        job=what.job,
        author=what.author,
        org=what.org,
        state=run.state,
        round=run.round,
        rounds=run.rounds,
        sites=what.sites,
        accepted=run.accepted,
        refused={site: reason for site, reason in run.answers.items() if reason},
        min_sites=what.min_sites,
        priority=what.priority,
        seed=what.seed,
        created=run.created,
        ended=run.ended,
        reason=run.reason,
        metrics=run.metrics,
        job_hash=what.job_hash,
        bundle=what.bundle,
        label=what.label,
        working=working,
        waits=waits,
    )


def site_view(
    member: Member,
    book: Book,
    presence: Presence,
    revoked: Revoked | None,
    now: float,
    certified: float | None = None,
    key: str = "",
) -> SiteView:
    """The site as people see it. A site that is revoked is not there, whenever it was heard of."""
    site, ago = book.site(member.name), presence.seen_s_ago(member.name)
    hello = site.hello
    return SiteView(
        site=member.name,
        org=member.org,
        online=revoked is None and presence.online(member.name),
        disabled=site.disabled,
        revoked=None if revoked is None else revoked.reason,
        seen=None if ago is None else now - ago,
        certificate_ends=certified,
        key=key,
        cores=hello.cores if hello else 0,
        gpus=hello.gpus if hello else 0,
        memory_bytes=hello.memory_bytes if hello else 0,
        data=hello.data if hello else {},
        demands=hello.demands if hello else [],
        runs=[run.id for run in book.runs.values() if run.state == "running" and member.name in run.accepted],
    )


def event_view(event: Event) -> dict[str, Any]:
    """An event as watchers get it; `seq` is the event's, `step` the number of the run's step."""
    data = {"step" if name == "seq" else name: value for name, value in event.data.items() if name != "type"}
    return {**data, "seq": event.seq, "kind": event.kind, "at": event.at}
