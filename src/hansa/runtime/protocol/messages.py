"""The site protocol: one HTTPS port, JSON messages, content-addressed blobs. A version is agreed on in the handshake.

    site -> server                              answer
    POST /v1/enroll     Enrol                   Enrolled        bootstrap certificate only
    POST /v1/renew      Renew                   Enrolled        the next certificate, asked for with the one that ends
    POST /v1/token      (proof in the header)   Token           5 minutes, bound to the key (RFC 9449)
    POST /v1/hello      Hello                   Welcome         versions, the site's slot-independent facts
    GET  /v1/work?after=N&hold_s=25&inside=B    Work            long poll: what is new for this site since event N; blobs of up to B
                                                                bytes in all come with it
    GET  /v1/blobs/{digest}  Range              bytes           resumable
    HEAD /v1/blobs/{digest}                     Upload-Offset   how much of an upload the server has
    PUT  /v1/blobs/{digest}  Upload-Offset      204             appended; verified when whole
    POST /v1/results    Result (with its blob)  Ack             committed before it is acknowledged; a repeat gets the same answer
    POST /v1/beats      Beat                    204             heartbeat with progress; never committed
    POST /v1/notes      Notes                   204             live metrics and log lines of a run

A message with blobs says in the header Hansa-Message how many bytes of the body are its own; the blobs follow, in the order of
`Work.inside`, or the one of a result. Only small ones travel so (`INSIDE`); larger ones go by themselves, in ranges. That is
version 2: a site of version 1 does not ask for it, and a server of version 1 is not sent it.

A site's requests name its agent in the header Hansa-Agent, by a number that each makes at its start; of two with one identity the
one that said hello last is served, the other is told (`two_agents`).
Each change carries the idempotency key (run, seq, attempt, slot); `attempt` is a fencing token: a lower one is answered `stale`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

VERSIONS: Final = (2, 1)  # protocol versions served, newest first; one back is kept
CARRIES: Final = 2  # from this version on, messages carry small blobs
AGENT: Final = "Hansa-Agent"
OWN: Final = "Hansa-Message"  # how many bytes of a body are the message; blobs follow
HOLD_S: Final = 25.0  # how long a poll is held; repeating it is no failure
TOKEN_S: Final = 300.0
BEAT_S: Final = 10.0
LOST_AFTER_S: Final = 30.0  # three heartbeats
CHUNK: Final = 1024 * 1024  # bytes of one ranged transfer: passes nginx's default body limit
INSIDE: Final = CHUNK - 8 * 1024  # bytes of blobs in one message: with a result's own words it passes that limit, too
JSON_LIMIT: Final = 256 * 1024
NOTES: Final = 200  # live lines of one message
NOTE_TEXT: Final = 1_000  # characters of one live line
PROBLEM: Final = "application/problem+json"


Counted: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]  # what JSON's readers and Prometheus can hold


Schema: TypeAlias = Annotated[str, msgspec.Meta(max_length=4_000)]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=False, omit_defaults=True, kw_only=True):
    """A message: fields that a newer version adds are passed over, fields that are missing are an error."""


class Enrol(Message, frozen=True):
    """A certificate signing request with the kit's one-time token."""

    csr: str
    token: str


class Renew(Message, frozen=True):
    """A certificate signing request of a site that has a certificate."""

    csr: str


class Enrolled(Message, frozen=True):
    """The site's certificate and the chain it belongs to, as PEM."""

    certificate: str
    chain: str


class Token(Message, frozen=True):
    """A token that is worth nothing without the site's key."""

    token: str
    expires_in: float
    server_time: float


class Hello(Message, frozen=True):
    """What a site is and can do."""

    versions: list[int]
    software: str
    data: dict[str, Schema] = {}  # label -> the type of the data, in the notation of computations; never the data. "": not said
    environments: list[str] = []
    cores: int = 1
    gpus: int = 0
    memory_bytes: int = 0
    demands: Annotated[list[Annotated[str, msgspec.Meta(max_length=200)]], msgspec.Meta(max_length=64)] = []  # of its policy


class Welcome(Message, frozen=True):
    """The agreed version, the project, and the event from which to poll."""

    version: int
    project: str
    site: str
    after: int
    epoch: int  # grows with every start of the server; an older one is refused by sites (a restored backup)
    policy: str = ""  # the signed policy document, if newer than the site's


class Assignment(Message, frozen=True):
    """A task for one site. `body` is the digest of the encoded shareable; `bundle` that of the signed job."""

    run: str
    seq: int
    attempt: int
    slot: int
    task: str
    round: int
    body: str
    body_bytes: int
    bundle: str
    seed: int
    population: int
    job: str
    data: str
    deadline_s: float | None = None
    progress_s: float | None = None


class Offer(Message, frozen=True):
    """A run that a site is asked to take part in: it accepts or refuses before the first task."""

    run: str
    job: str
    author: str
    bundle: str
    bundle_bytes: int
    slot: int


class Ended(Message, frozen=True):
    """A run is over, or a task is no longer wanted (`seq` set; with `attempt`: this and earlier attempts at it)."""

    run: str
    reason: str
    seq: int | None = None
    attempt: int | None = None
    models: dict[str, str] = {}  # "final", "best" -> digest, for sites that contributed and want them


class NotCounted(Message, frozen=True):
    """A result that was acknowledged did not count in the end: what the site put into its memory with it is to be forgotten.

    The gate or the aggregator refused it, or the round had ended. It is said before the site's next task of the run.
    """

    run: str
    seq: int
    attempt: int
    slot: int
    reason: str = ""


class Work(Message, frozen=True):
    """What is new for a site. `after` is the number to poll with next; what did not count comes before the assignments.

    inside: the digests of the blobs that follow the message; each is named by an offer or an assignment, with its size.
    """

    after: int
    inside: list[str] = []
    offers: list[Offer] = []
    assignments: list[Assignment] = []
    ended: list[Ended] = []
    not_counted: list[NotCounted] = []


class Result(Message, frozen=True):
    """A site's answer to an assignment or to an offer (`seq` 0): a blob, sent before or with it, or the failure in its place."""

    run: str
    seq: int
    attempt: int
    slot: int
    blob: str | None = None
    blob_bytes: int = 0
    code: str | None = None
    message: str = ""
    path: str | None = None
    trace: str = ""
    seconds: float = 0.0


class Ack(Message, frozen=True):
    """What became of a result. Only `accepted` counts it; every other word tells the site to forget it."""

    outcome: Literal["accepted", "duplicate", "late", "stale", "foreign", "ended"]


class Progress(Message, frozen=True):
    """How far a task is (`seq` 0: an offer): bytes moved and steps taken since it began; `fraction` where the job's code says so.

    `waits` says what it waits for at the site: nothing moves then, and the task is not given up for that.
    """

    run: str
    seq: int
    attempt: int = 1
    task: str = ""
    round: int = 0
    bytes: Counted = 0
    steps: Counted = 0
    fraction: float | None = None
    waits: Annotated[str, msgspec.Meta(max_length=500)] = ""


class Beat(Message, frozen=True):
    """A heartbeat. `leaving`: the last one, of an agent that was told to stop; what it was asked may wait for its return."""

    busy: list[Progress] = []
    leaving: bool = False


class Note(Message, frozen=True):
    """One live line of a run: numbers that its code tracks (`step` of `of`), or a line that it logged or printed (no `logger`).

    `at` is by the site's clock, in seconds since 1970. A number that is not finite comes as null.
    """

    run: str
    kind: Literal["metric", "log"]
    at: float
    task: Annotated[str, msgspec.Meta(max_length=200)] = ""
    round: int = 0
    step: int | None = None
    of: int | None = None
    values: Annotated[dict[Annotated[str, msgspec.Meta(max_length=80)], float | None], msgspec.Meta(max_length=64)] = {}
    level: Annotated[str, msgspec.Meta(max_length=20)] = ""
    logger: Annotated[str, msgspec.Meta(max_length=80)] = ""
    text: Annotated[str, msgspec.Meta(max_length=NOTE_TEXT)] = ""


class Notes(Message, frozen=True):
    """Lines in order."""

    notes: Annotated[list[Note], msgspec.Meta(max_length=NOTES)]


class Problem(Message, frozen=True):
    """Why a request failed (RFC 9457). `code` is stable; `hint` says what to do."""

    title: str
    status: int
    code: str
    detail: str = ""
    hint: str = ""


def encode(message: Message) -> bytes:
    """The message as JSON."""
    return msgspec.json.encode(message)


def decode(data: bytes | memoryview, kind: type[Any]) -> Any:  # the message of that kind
    """The message in the bytes.

    Raises:
        msgspec.ValidationError: a field is missing or has another type; names its path.
    """
    return msgspec.json.decode(data, type=kind)


def own_bytes(header: str | None, size: int) -> int:
    """How many bytes of a body of `size` bytes are the message itself, by its header Hansa-Message; all of them without one.

    Raises:
        ValueError: the header is no such number.
    """
    if header is None:
        return size
    if not (header.isascii() and header.isdigit() and len(header) < 16) or int(header) > size:
        raise ValueError(f"{OWN}: {header[:20]!r}")
    return int(header)
