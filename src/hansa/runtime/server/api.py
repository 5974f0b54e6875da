"""The people's REST API under /api: each handler finds out who asks, and hands on to People."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final, Literal

from litestar import Request, delete, get, post
from litestar.params import Parameter
from litestar.response import Stream

from hansa.errors import InputError
from hansa.runtime.protocol.messages import HOLD_S
from hansa.runtime.server import transfers
from hansa.runtime.server.known import PROJECT
from hansa.runtime.server.people import People
from hansa.runtime.server.site_api import admit, ranged
from hansa.runtime.server.views import (
    Audit,
    EventList,
    FileList,
    PlanView,
    Reason,
    RunList,
    RunView,
    SiteList,
    SiteView,
    Submission,
)

Asked = Request[Any, Any, Any]
Counted = Annotated[int, Parameter(ge=0, le=1 << 53)]


def _people(request: Asked) -> People:
    people: People = request.app.state.people
    return people


@post("/api/runs", status_code=201)
async def submit(request: Asked, data: Submission) -> RunView:
    """Submit a bundle that was uploaded."""
    return await _people(request).submit(admit(request, "admin"), data)


@get("/api/runs")
async def runs(request: Asked) -> RunList:
    """All runs."""
    people, asker = _people(request), admit(request, "admin")
    await people.door.require(asker, "run.list", "runs")
    return RunList([people.shown(run) for run in people.inbox.book.runs.values() if not run.deleted])


@get("/api/runs/{name:str}")
async def show(request: Asked, name: str) -> RunView:
    """One run."""
    people = _people(request)
    return people.shown(await people.run(admit(request, "admin"), name))


@get("/api/runs/{name:str}/events")
async def events(
    request: Asked, name: str, after: Counted = 0, hold_s: float = 0.0, live_after: Counted | None = None
) -> EventList:
    """What has happened since event `after`, and live lines from `live_after` on; waits for at most `hold_s` seconds."""
    return await _people(request).happened(admit(request, "admin"), name, after, live_after, min(hold_s, HOLD_S))


@post("/api/runs/{name:str}/{verb:str}", status_code=200)
async def steer(request: Asked, name: str, verb: Literal["abort", "pause", "resume"], data: Reason | None = None) -> RunView:
    """Abort, pause or resume a run."""
    return await _people(request).steer(admit(request, "admin"), name, verb, (data or Reason()).reason)


@delete("/api/runs/{name:str}", status_code=204)
async def remove(request: Asked, name: str) -> None:
    """Delete a run that has ended."""
    await _people(request).delete(admit(request, "admin"), name)


@get("/api/runs/{name:str}/files")
async def files(request: Asked, name: str) -> FileList:
    """The files of a run folder."""
    return await _people(request).files(admit(request, "admin"), name)


@get("/api/runs/{name:str}/files/{path:path}")
async def file(request: Asked, name: str, path: str) -> Stream:
    """A file of a run folder, or a range of it."""
    people, asker = _people(request), admit(request, "admin")
    opened, size = await people.file(asker, name, str(path).lstrip("/"))
    begin, end = transfers.wanted(request.headers.get("range"), size)
    return ranged(transfers.pieces(opened, begin, end, people.way, partial(people.door.still, asker)), begin, end, size)


@get("/api/runs/{name:str}/plan")
async def plan(request: Asked, name: str) -> PlanView:
    """What runs and what leaves."""
    return await _people(request).plan(admit(request, "admin"), name)


@get("/api/sites")
async def sites(request: Asked) -> SiteList:
    """The sites of the project."""
    return SiteList(await _people(request).sites(admit(request, "admin")))


@post("/api/sites/{name:str}/{verb:str}", status_code=200)
async def switch(request: Asked, name: str, verb: Literal["disable", "enable"], data: Reason | None = None) -> SiteView:
    """Disable or enable a site."""
    reason = (data or Reason()).reason
    return await _people(request).switch(admit(request, "admin"), name, on=verb == "enable", reason=reason)


@get("/api/audit")
async def audit(request: Asked, stream: str = PROJECT, after: Counted = 0) -> Audit:
    """A stream of the record, as it is chained."""
    if len(stream) > 200:
        raise InputError("not a stream", got=f"{len(stream)} characters")
    return await _people(request).audit(admit(request, "admin"), stream, after)


HANDLERS: Final = (submit, runs, show, events, steer, remove, files, file, plan, sites, switch, audit)
