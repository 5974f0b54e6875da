"""The sites' protocol under /v1: token, enrolment, work, blobs, results, heartbeats."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from functools import partial
from itertools import groupby
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, get, head, post, put
from litestar.params import Parameter
from litestar.response import Stream

from hansa.errors import HansaError, IdentityError, InputError, RefusedError, VersionError
from hansa.runtime.protocol.messages import (
    AGENT,
    CHUNK,
    HOLD_S,
    INSIDE,
    JSON_LIMIT,
    OWN,
    VERSIONS,
    Ack,
    Beat,
    Enrol,
    Hello,
    Message,
    Notes,
    Renew,
    Result,
    Welcome,
    Work,
    decode,
    encode,
    own_bytes,
)
from hansa.runtime.server import transfers
from hansa.runtime.server.door import Asker
from hansa.runtime.server.inbox import ARRANGE, judge
from hansa.runtime.server.known import PROJECT, stream_of
from hansa.runtime.server.people import People
from hansa.runtime.server.quotas import QuotaError
from hansa.runtime.store.blob import MissingBlobError, require_digest
from hansa.runtime.store.event import Entry

BODY_LIMIT: Final = 2 * CHUNK  # beyond it the connection is cut; below, who sends too much is told
POLICY_LIMIT: Final = 2 * JSON_LIMIT  # bytes of a policy in an answer: some 3,000 members
LOG: Final = logging.getLogger("hansa.server")
_TWO: Final = "two_agents"
_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"
Asked = Request[Any, Any, Any]
Counted = Annotated[int, Parameter(ge=0, le=1 << 53)]


def log_fault(error: Exception) -> None:
    """Put a fault of ours into the log."""
    LOG.error("request.failed", exc_info=error)


def admit(request: Asked, kind: str) -> Asker:
    """Who asks."""
    headers = request.headers
    asker: Asker = request.app.state.door.admit(
        request.method, _path(request), headers.get("dpop"), headers.get("authorization"), kind
    )
    return asker


def _path(request: Asked) -> str:
    """The path as it was sent, which is what its sender has signed."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    return raw.partition(b"?")[0].decode("ascii", "replace")


def _site(request: Asked, *, greets: bool = False) -> tuple[People, Asker]:
    """A site that asks: heard of by that. The agent that `greets` is its only one from then on."""
    people: People = request.app.state.people
    asker = admit(request, "site")
    if greets:
        people.presence.greeted(asker.name, _agent(request))
    elif people.presence.displaced(asker.name, _agent(request)):
        _cause(people, asker, "two agents")
        people.inbox.begin({PROJECT: [Entry("site.two_agents", {"site": asker.name})]})
        raise _two_agents(asker)
    if people.presence.heard(asker.name, _agent(request)):
        people.inbox.bells.ring(ARRANGE)
    if (reason := people.inbox.book.site(asker.name).disabled) is not None:
        raise RefusedError("the project does not work with this site at present", got=reason, hint="ask its administrator")
    return people, asker


def _cause(people: People, asker: Asker, what: str) -> None:
    people.quotas.cause(asker.name, what, now=people.inbox.clock.now())


def _agent(request: Asked) -> str:
    return request.headers.get(AGENT, "")[:64]


def _two_agents(asker: Asker) -> IdentityError:
    """Results of two would be taken for one's: only the newest is served, so that a restart is not kept out."""
    hint = "stop one of the two; if nobody here started it, the kit was copied: ask for hansa provision rotate NAME"
    return IdentityError(_TWO, "another agent with this site's identity has started", site=asker.name, hint=hint)


async def _body(request: Asked, kind: type[Any]) -> Any:  # the message of that kind
    content = await request.body()
    if len(content) > JSON_LIMIT:
        raise InputError("the message is too long", got=f"{len(content):,} bytes", expected=f"at most {JSON_LIMIT:,}")
    return decode(content, kind)


def _said(message: Message, status: int = 200) -> Response[bytes]:
    return Response(encode(message), status_code=status, media_type=_JSON)


@post("/v1/token")
async def token(request: Asked) -> Response[bytes]:
    """A token for who shows a certificate and its key."""
    return _said(request.app.state.door.token(request.method, _path(request), request.headers.get("dpop")))


@post("/v1/enroll")
async def enroll(request: Asked) -> Response[bytes]:
    """A site's certificate for its one-time token."""
    asked = await _body(request, Enrol)
    return _said(await request.app.state.door.enrol(request.method, _path(request), request.headers.get("dpop"), asked))


@post("/v1/renew")
async def renew(request: Asked) -> Response[bytes]:
    """A site's next certificate."""
    people, asker = _site(request)
    asked: Renew = await _body(request, Renew)
    _cause(people, asker, "renewals")
    return _said(await people.door.renew(asker, asked))


@post("/v1/hello")
async def hello(request: Asked) -> Response[bytes]:
    """The agreed version, and what the site needs to know of the server."""
    people, asker = _site(request, greets=True)
    said: Hello = await _body(request, Hello)
    version = next((version for version in VERSIONS if version in said.versions), None)
    if version is None:
        raise VersionError("no version of the protocol in common", got=said.versions, expected=list(VERSIONS), hint="upgrade")
    book = people.inbox.book
    if book.site(asker.name).hello != said:
        _cause(people, asker, "greetings")
        entry = Entry("site.hello", {"site": asker.name, "hello": msgspec.to_builtins(said)})
        await people.inbox.commit({PROJECT: [entry]})
    people.inbox.bells.ring(ARRANGE, f"site/{asker.name}")  # an agent that was before asks in vain
    document = people.door.document if len(people.door.document) <= POLICY_LIMIT else b""  # sites then keep their kit's
    welcome = Welcome(
        version=version,
        project=people.door.policy.project,
        site=asker.name,
        after=0,
        epoch=book.epoch,
        policy=document.decode(),
    )
    return _said(welcome)


@get("/v1/work")
async def work(request: Asked, after: Counted = 0, hold_s: float = HOLD_S, inside: Counted = 0) -> Response[Any]:
    """What is new for a site since event `after`, with blobs of up to `inside` bytes in all."""
    people, asker = _site(request)

    async def allowed() -> None:
        people.door.still(asker)
        if people.presence.displaced(asker.name, _agent(request)):
            raise _two_agents(asker)
        people.presence.heard(asker.name, _agent(request))

    try:
        found = await people.inbox.poll(asker.name, after, max(0.0, hold_s), allowed)
    except IdentityError as error:
        if error.code != _TWO:
            raise
        return _said(Work(after=after))  # if it is still there it asks again: then it is told, and on record
    for each in found.assignments:
        run = people.inbox.book.runs[each.run]
        if asker.name not in run.began:
            run.began.add(asker.name)
            data = {"step": each.seq, "slot": each.slot, "site": asker.name, "task": each.task, "round": each.round}
            people.inbox.begin({stream_of(run.id): [Entry("task.started", data)]})
    return _carried(people, found, min(inside, INSIDE), partial(people.door.still, asker))


def _carried(people: People, found: Work, room: int, allowed: transfers.Allowed) -> Response[Any]:
    """The answer, with the blobs that it names, those for which there is room."""
    sizes: dict[str, int] = {}
    for digest, size in [(each.body, each.body_bytes) for each in found.assignments] + [
        (each.bundle, each.bundle_bytes) for each in found.offers
    ]:
        if digest not in sizes and size <= room and people.inbox.blobs.size(digest) == size:
            sizes[digest], room = size, room - size
    if not sizes:
        return _said(found)
    own = encode(msgspec.structs.replace(found, inside=list(sizes)))

    async def content() -> AsyncIterator[bytes]:
        yield own
        for digest, size in sizes.items():
            async for piece in transfers.pieces(partial(people.inbox.blobs.open, digest), 0, size, people.way, allowed):
                yield piece

    headers = {OWN: str(len(own)), "Content-Length": str(len(own) + sum(sizes.values())), "X-Accel-Buffering": "no"}
    return Stream(content(), media_type=_BINARY, headers=headers)


@head("/v1/blobs/{digest:str}")
async def measure(request: Asked, digest: str) -> Response[None]:
    """How much of a blob is here, for who sends it."""
    people, asker = _sender(request)
    size = await transfers.received(people.inbox.blobs, digest, asker.name)
    return Response(None, headers={"Upload-Offset": str(size)}, media_type=_JSON)


@put("/v1/blobs/{digest:str}", status_code=204, request_max_body_size=None)
async def store(request: Asked, digest: str) -> Response[None]:
    """Take the next piece of a blob in, as it comes."""
    people, asker = _sender(request)
    headers = request.headers
    numbers = [headers.get(name, "") for name in ("upload-offset", "upload-length")]
    if not all(text.isascii() and text.isdigit() and len(text) < 16 for text in numbers):
        raise InputError("an upload says its place and its size", expected="headers Upload-Offset and Upload-Length", got=numbers)
    offset, size = map(int, numbers)
    limit = people.door.policy.rules.max_job_mb << 20 if asker.member.kind == "admin" else transfers.UPLOAD_LIMIT
    part, allowed = transfers.Part(digest, asker.name, offset, size), partial(people.door.still, asker)
    transfers.require_within(part, limit)
    await _may_send(people, asker, digest, size)
    here = await transfers.upload(people.inbox.blobs, part, request.stream(), people.way, limit=limit, allowed=allowed)
    return Response(None, status_code=204, headers={"Upload-Offset": str(here)})


@get("/v1/blobs/{digest:str}")
async def fetch(request: Asked, digest: str) -> Stream:
    """A blob that this site was given, or a range of it."""
    people, asker = _site(request)
    size = people.inbox.blobs.size(digest)
    if size is None or not people.inbox.book.may_read(asker.name, digest):
        raise MissingBlobError("there is no such blob for this site", path=digest[:64])
    begin, end = transfers.wanted(request.headers.get("range"), size)
    content = transfers.pieces(partial(people.inbox.blobs.open, digest), begin, end, people.way, partial(people.door.still, asker))
    return ranged(content, begin, end, size)


def ranged(content: Any, begin: int, end: int, size: int) -> Stream:
    """The answer to a request for bytes [begin, end) of `size`."""
    # nginx passes it on as it comes, instead of all at once to its own disk: who is revoked gets no more of it
    headers = {"Content-Length": str(end - begin), "Accept-Ranges": "bytes", "X-Accel-Buffering": "no"}
    part = (begin, end) != (0, size)
    if part:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
    return Stream(content, status_code=206 if part else 200, media_type=_BINARY, headers=headers)


@post("/v1/results")
async def results(request: Asked) -> Response[bytes]:
    """What becomes of a result, whose blob may come with it."""
    people, asker = _site(request)
    if request.headers.get(OWN) is None:
        return await _answered(people, asker, await _body(request, Result))
    result, content = await _with_blob(request)
    if not isinstance(judge(people.inbox.book, asker.name, result), Ack):  # else it is not wanted: nothing is written
        part, allowed = transfers.Part(result.blob or "", asker.name, 0, result.blob_bytes), partial(people.door.still, asker)
        await _may_send(people, asker, part.digest, part.size)
        await transfers.inside(people.inbox.blobs, part, content, people.way, allowed=allowed)
    async for _ in content:
        pass
    return await _answered(people, asker, result)


async def _answered(people: People, asker: Asker, result: Result) -> Response[bytes]:
    ack = await people.inbox.answer(asker.name, result)
    if result.blob is not None and ack.outcome == "accepted":
        people.quotas.named(asker.name, result.blob)
    return _said(ack)


async def _may_send(people: People, asker: Asker, digest: str, size: int) -> None:
    """Return if there is room for what the asker leaves at the server; what nothing refers to for long is swept first.

    Raises:
        QuotaError: there is not.
    """
    require_digest(digest)
    try:
        people.quotas.send(asker.name, digest, size)
    except QuotaError:
        await people.scheduler.sweep()
        people.quotas.gone(people.inbox.blobs)
        people.quotas.send(asker.name, digest, size)


async def _with_blob(request: Asked) -> tuple[Result, AsyncIterator[bytes]]:
    """A result, and the bytes of its blob as they come.

    Raises:
        InputError: the request is too long, or not what its header says.
    """
    length = request.headers.get("content-length", "")
    size = int(length) if length.isascii() and length.isdigit() and len(length) < 16 else -1
    if not 0 <= size <= JSON_LIMIT + INSIDE:
        raise InputError("the message is too long", got=f"{length[:20]} bytes", expected=f"at most {JSON_LIMIT + INSIDE:,}")
    try:
        own = own_bytes(request.headers.get(OWN), size)
    except ValueError as error:
        raise InputError("a message with a blob says how long it is itself", got=str(error), expected=f"header {OWN}") from error
    stream, head = request.stream(), bytearray()
    while len(head) < min(own, JSON_LIMIT):
        head += await anext(stream, b"") or b"\0" * own  # cut short: no message
    result: Result = decode(bytes(head[:own]), Result)
    if result.blob is None or result.blob_bytes != size - own:
        got = f"{size - own:,} bytes"
        raise InputError("a result says what comes with it", got=got, expected=f"its blob, {result.blob_bytes:,} bytes")

    async def rest() -> AsyncIterator[bytes]:
        if len(head) > own:
            yield bytes(head[own:])
        async for piece in stream:
            yield piece

    return result, rest()


@post("/v1/beats", status_code=204)
async def beats(request: Asked) -> None:
    """A sign of life, and what the site is at."""
    people, asker = _site(request)
    said: Beat = await _body(request, Beat)
    people.progresses.heard(asker.name, said.busy)
    if said.leaving:
        people.presence.left(asker.name, _agent(request))


@post("/v1/notes", status_code=204)
async def notes(request: Asked) -> None:
    """Live numbers and log lines of runs that the site was asked to take part in."""
    people, asker = _site(request)
    said: Notes = await _body(request, Notes)
    for name, lines in groupby(said.notes, key=lambda note: note.run):
        run = people.inbox.book.run(name)
        if run is not None and not run.over and asker.name in run.what.sites and not run.answers.get(asker.name):
            await people.live.add(run.id, asker.name, len(run.what.sites), list(lines))


def _sender(request: Asked) -> tuple[People, Asker]:
    """Who may send blobs: sites, and people, who send bundles."""
    people: People = request.app.state.people
    asker = admit(request, "site|admin")
    if asker.member.kind == "site" and people.inbox.book.site(asker.name).disabled is not None:
        raise RefusedError("the project does not work with this site at present", hint="ask its administrator")
    return people, asker


HANDLERS: Final = (token, enroll, renew, hello, work, measure, store, fetch, results, beats, notes)
__all__ = ["BODY_LIMIT", "HANDLERS", "HansaError", "admit", "log_fault", "ranged"]
