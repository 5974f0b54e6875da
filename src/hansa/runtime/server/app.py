"""The server's HTTP: the sites' protocol under /v1 (see runtime/protocol/messages) and the people's REST API under /api.

People prove who they are as sites do: POST /v1/token with a DPoP proof that carries the certificates (x5c), then on every request
`Authorization: DPoP TOKEN` and a fresh proof in `DPoP`. The proof's `htu` is the kit's url + path, without the query.

| request | body, query | answer |
|---|---|---|
| PUT /v1/blobs/{digest} | headers Upload-Offset, Upload-Length; bytes from there on | 204, header Upload-Offset: what is here |
| POST /api/runs | {"bundle": digest, "seed", "sites", "min_sites", "priority", "request", "label"}: views.Submission | 201 run |
| GET /api/runs | | {"runs": [run, ..]}, newest last |
| GET /api/runs/{id} | | run |
| GET /api/runs/{id}/events | ?after&hold_s&live_after | {"events", "after", "live", "live_after"}: lists, and where to go on |
| POST /api/runs/{id}/abort, pause, resume | {"reason": ""}? | run |
| DELETE /api/runs/{id} | | 204; the run must have ended |
| GET /api/runs/{id}/files | | {"files": [{"path", "bytes"}, ..]}: the run folder |
| GET /api/runs/{id}/files/{path} | header Range | 200 or 206, bytes |
| GET /api/runs/{id}/plan | | {"plan": text, "document", "job_hash", "reference", "files": {path: sha256}} |
| GET /api/sites | | {"sites": [site, ..]} |
| POST /api/sites/{name}/disable, enable | {"reason": ""}? | site |
| GET /api/audit | ?stream=project&after=0 | {"streams": [..], "events": [link, ..], "after": n}; at most 1,000 |
| GET /metrics, /health | | Prometheus text, counts alone; {"status": "ok", "project", "version", "time"} |
| GET /schema/openapi.json | | OpenAPI |

run: {"run", "job", "author", "org", "state", "round", "rounds", "sites": [name, ..], "accepted": [name, ..],
"refused": {site: reason}, "min_sites", "priority", "seed", "created", "ended": null | s, "reason": "", "metrics": {name: number},
"job_hash", "bundle", "label", "working": {site: {"task", "round", "steps", "bytes", "fraction", "waits"}}, "waits": [line, ..]}.
`state` is one of CONTRACTS: pending running paused completed failed aborted refused. Times: s since 1970.
event: {"seq", "kind", "at", ...data}; a step's number is "step". Kinds: run.submitted run.offered site.accepted site.refused
run.started run.ready task.opened task.started result task.lost task.closed round checkpoint run.paused run.resumed run.crashed
run.ended. `round` carries a line of metrics.jsonl as "record".
line: {"site", "kind": "metric" or "log", "at", "task", "round", "step", "of", "values": {name: number}, "level", "logger", "text"}.
Events and lines are held until there is one, at most 25 s; log lines are for those who may download the run.
site: {"site", "org", "online", "disabled": null | reason, "revoked": null | reason, "seen": s | null, "certificate_ends": s | null,
"key": thumbprint, "cores", "gpus", "memory_bytes", "data": {label: type}, "runs": [id, ..]}
link: an event as it is chained: {"id", "stream", "seq", "kind", "at", "data", "prev", "hash"}. Streams: project, run/ID.
A refusal is application/problem+json: {"title", "status", "code", "detail", "hint"} (messages.Problem).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response, get
from litestar.config.response_cache import ResponseCacheConfig
from litestar.datastructures import State
from litestar.exceptions import HTTPException, InternalServerException
from litestar.openapi import OpenAPIConfig
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from hansa.errors import HansaError, IdentityError, InputError, RefusedError, StorageError
from hansa.runtime.protocol.messages import PROBLEM, Problem, encode
from hansa.runtime.server import api, site_api
from hansa.runtime.server.papers import Papers
from hansa.runtime.server.people import NotThereError, People
from hansa.runtime.server.views import Health
from hansa.runtime.store.blob import DigestError, MissingBlobError, OffsetError

_AGAIN: Final = frozenset({"no_token", "token_expired", "bad_signature", "no_proof", "stolen_token", "clock_skew", "replayed"})
_STATUS: Final[tuple[tuple[type[HansaError], int], ...]] = (
    (NotThereError, 404),
    (MissingBlobError, 404),
    (OffsetError, 409),
    (DigestError, 422),
    (InputError, 400),
    (RefusedError, 403),
    (StorageError, 507),
)


@dataclass(frozen=True)
class Served:
    """What the handlers work with."""

    people: People
    project: str
    papers: Papers


class _Lean(Litestar):
    """Litestar without its plug-in for pydantic, which nothing here uses and which takes a quarter of a second to load."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def make_app(served: Served) -> Litestar:
    """The ASGI application."""
    registry = _registry(served, names=False)
    return _Lean(
        route_handlers=[health, metrics, *site_api.HANDLERS, *api.HANDLERS],
        state=State({"people": served.people, "door": served.people.door, "registry": registry, "project": served.project}),
        exception_handlers={HansaError: _refused, msgspec.MsgspecError: _malformed, HTTPException: _http, Exception: _fault},
        openapi_config=OpenAPIConfig(title="Hansa", version=version("hansa"), path="/schema"),
        response_cache_config=ResponseCacheConfig(default_expiration=0),
        logging_config=None,
        request_max_body_size=site_api.BODY_LIMIT,
    )


def make_metrics_app(served: Served) -> Litestar:
    """The ASGI application of the numbers with names: for a port of the server's machine alone."""
    state = State({"registry": _registry(served, names=True)})
    return _Lean(route_handlers=[metrics], state=state, openapi_config=None, logging_config=None)


def _registry(served: Served, *, names: bool) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Numbers(served.people, served.papers, names=names))
    return registry


@get("/health", sync_to_thread=False)
def health(state: State) -> Health:
    """Whether the server is up, for load balancers and preflights."""
    return Health("ok", state.project, version("hansa"), state.people.inbox.clock.now())


@get("/metrics", sync_to_thread=False, include_in_schema=False)
def metrics(state: State) -> Response[bytes]:
    """Numbers for Prometheus: where sites and people ask, too, counts without names."""
    return Response(generate_latest(state.registry), media_type="text/plain; version=0.0.4; charset=utf-8")


class _Numbers(Collector):
    """The server's numbers, counted when they are asked for; `names`: those of each run and site, too."""

    def __init__(self, people: People, papers: Papers, *, names: bool) -> None:
        self._people, self._papers, self._names = people, papers, names

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All of them."""
        book, presence = self._people.inbox.book, self._people.presence
        states = GaugeMetricFamily("hansa_runs", "Runs by state.", labels=["state"])
        counted: dict[str, int] = {}
        for run in book.runs.values():
            counted[run.state] = counted.get(run.state, 0) + (not run.deleted)
        for state, count in sorted(counted.items()):
            states.add_metric([state], count)
        online = sum(presence.online(site) for site in book.sites)
        if self._names:
            yield from self._of_runs()
            yield from self._of_sites()
        free = self._people.inbox.blobs.free_bytes
        yield states
        papers = GaugeMetricFamily(
            "hansa_certificate_ends_seconds", "When the server's certificates end, since 1970.", labels=["what"]
        )
        for paper in self._papers.all():
            papers.add_metric([paper.what], paper.until)
        yield papers
        first = self._people.first_end()
        yield GaugeMetricFamily("hansa_site_certificates_end_seconds", "When the first one ends, since 1970; 0: none.", value=first)
        yield GaugeMetricFamily("hansa_sites_online", "Sites heard of within 30 s.", value=online)
        yield GaugeMetricFamily("hansa_runs_live", "Runs whose process is up.", value=self._people.scheduler.live)
        yield GaugeMetricFamily("hansa_events", "Events committed.", value=book.last)
        yield GaugeMetricFamily("hansa_free_bytes", "Room for blobs, the reserve left out.", value=free)

    def _of_runs(self) -> Iterator[GaugeMetricFamily]:
        """The runs that go on: their rounds, their newest numbers, and what their sites have told last."""
        people = self._people
        round_ = GaugeMetricFamily("hansa_run_round", "The last round that has ended.", labels=["run", "job"])
        metric = GaugeMetricFamily("hansa_run_metric", "A global metric of the last round.", labels=["run", "job", "metric"])
        steps = GaugeMetricFamily("hansa_run_site_steps", "Steps of the task that a site is at.", labels=["run", "site"])
        told = GaugeMetricFamily("hansa_run_site_metric", "A number that a site has told last.", labels=["run", "site", "metric"])
        for run in people.inbox.book.runs.values():
            if run.state != "running":
                continue
            round_.add_metric([run.id, run.what.job], run.round)
            for name, value in run.metrics.items():
                metric.add_metric([run.id, run.what.job, name], math.nan if value is None else value)
            for site, working in people.progresses.at(run.id).items():
                steps.add_metric([run.id, site], working.steps)
        for (run_id, site), values in people.live.newest.items():
            for name, value in values.items():
                told.add_metric([run_id, site, name], value)
        yield from (round_, metric, steps, told)

    def _of_sites(self) -> Iterator[GaugeMetricFamily]:
        """The sites: whether each is there."""
        online = GaugeMetricFamily("hansa_site_online", "Whether the site was heard of within 30 s.", labels=["site"])
        for site in self._people.inbox.book.sites:
            online.add_metric([site], float(self._people.presence.online(site)))
        yield online


def problem(status: int, code: str, title: str, *, detail: str = "", hint: str = "") -> Response[bytes]:
    """A refusal in the form of RFC 9457."""
    content = encode(Problem(title=title, status=status, code=code, detail=detail, hint=hint))
    headers = {"WWW-Authenticate": "DPoP"} if status == 401 else {}
    return Response(content, status_code=status, media_type=PROBLEM, headers=headers)


def _refused(_: Request[Any, Any, Any], error: HansaError) -> Response[bytes]:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if isinstance(error, IdentityError) and error.code in _AGAIN:
        status = 401
    parts = {"at": error.path, "expected": error.expected, "got": error.got}
    detail = "; ".join(f"{name} {value}" for name, value in parts.items() if value is not None)
    answer = problem(status, error.code, error.message, detail=detail, hint=error.hint or "")
    if isinstance(error, OffsetError) and error.expected is not None:
        answer.headers["Upload-Offset"] = str(error.expected)
    return answer


def _malformed(_: Request[Any, Any, Any], error: msgspec.MsgspecError) -> Response[bytes]:
    return problem(400, "malformed", "the message cannot be read", detail=str(error))


def _http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    if isinstance(error, InternalServerException) and "disconnected" in error.detail:  # the sender has gone, and hears nothing
        return problem(400, "cut", error.detail)
    if error.status_code >= 500:
        return _fault(request, error)
    extra = error.extra if isinstance(error.extra, list) else []
    where = "; ".join(f"{each.get('key', '')}: {each.get('message', '')}" for each in extra if isinstance(each, dict))
    code = {400: "malformed", 404: "not_found", 405: "method", 413: "too_large"}.get(error.status_code, "http")
    return problem(error.status_code, code, error.detail, detail=where)


def _fault(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A fault of ours: the outermost call of the server. What it says stays in the log."""
    site_api.log_fault(error)
    return problem(500, "fault", "the server failed; its log says why", hint="send it again; tell the administrator if it stays")
