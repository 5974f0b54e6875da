"""What a person does with a federation, from Python: `with connect("kits/alice") as session: session.submit("digits.py:job")`."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.admin.answers import File, Files, Fit, Happened, Plan, RunEvent, Runs, Site, Sites, Status
from hansa.admin.channel import PATIENCE_S, Channel
from hansa.admin.wire import proxy_of
from hansa.core.job import Job
from hansa.core.trees import Tree
from hansa.errors import InputError, RefusedError, RunError, UnreachableError
from hansa.files import storage_error
from hansa.record import results
from hansa.record.folder import RunFolder
from hansa.runtime.authz.certificates import der
from hansa.runtime.authz.renewal import DAY_S, ends, renew_at
from hansa.runtime.config import Kit, load_kit
from hansa.runtime.jobs.build import Signer, build, read_job
from hansa.runtime.protocol.messages import HOLD_S
from hansa.runtime.store.event import Event
from hansa.schema import Misfit, check, read_type

_LOG: Final = logging.getLogger("hansa.admin")
_PROJECT: Final = "project"
_LAST: Final = frozenset({"run.ended", "run.deleted"})
_GROWTH: Final = 64 << 20  # bytes by which a file may have grown since it was listed


def connect(kit: str | Path, *, patience_s: float = PATIENCE_S) -> Session:
    """A session with the federation that the kit belongs to: a context manager. `kit` is a person's start-up kit, a folder.

    patience_s: how long a server that does not answer is tried again while a run is watched.

    Raises:
        InputError: no kit, or not a person's. IdentityError: a file of the kit was altered.
    """
    found = load_kit(kit)
    if found.kind != "admin":
        hint = "people use kits/admin, or the kit of their own name"
        raise InputError("not a person's kit", path=str(found.folder), got=f"the kit of a {found.kind}", hint=hint)
    chain, now = found.chain(), time.time()
    if now >= renew_at(chain):
        hint = "ask the administrator: hansa provision renew; the new certificate.pem goes into your kit"
        _LOG.warning("certificate.ends name=%s days_left=%.0f hint=%r", found.name, (ends(chain) - now) / DAY_S, hint)
    return Session(Channel(found, patience_s=patience_s, proxy=proxy_of(found, os.environ)))


class Session:
    """What a person may ask of a server. It speaks when it is asked to: nothing runs in the background."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    @property
    def kit(self) -> Kit:
        """Whose session it is."""
        return self._channel.kit

    def submit(
        self,
        reference: str,
        *,
        sites: Sequence[str] | None = None,
        min_sites: int | None = None,
        seed: int | None = None,
        priority: int = 0,
        include: Iterable[str | Path] = (),
        label: str = "",
    ) -> Run:
        """Submit the job that `file.py:name`, `package.module:name` or a job file leads to, signed with the kit's key.

        sites: names, in slot order (None: all of the project). min_sites: fewer refuse the run (None: all of them). seed: of
        every random stream (None: the job's). priority: -100 to 100, higher first. include: further files of the bundle.
        label: what you call the run, for `job list`; several may have one.

        Raises:
            JobReferenceError, TraceError: the job is not one. RefusedError: the server says no, and why.
        """
        data = self.bundle(reference, include)
        return self.submit_bundle(data, sites=sites, min_sites=min_sites, seed=seed, priority=priority, label=label)

    def bundle(self, reference: str, include: Iterable[str | Path] = ()) -> bytes:
        """The job as it travels, signed with the kit's key; nothing is sent."""
        return build(reference, include, sign=signer(self.kit))

    def submit_bundle(
        self,
        data: bytes,
        *,
        sites: Sequence[str] | None = None,
        min_sites: int | None = None,
        seed: int | None = None,
        priority: int = 0,
        label: str = "",
    ) -> Run:
        """Submit a bundle that was made before; the rest is as for `submit`."""
        digest = blake3(data).hexdigest()
        self._channel.patiently(lambda: self._channel.upload(digest, data))
        return self._submit(digest, sites=sites, min_sites=min_sites, seed=seed, priority=priority, label=label or None)

    def clone(self, run: str, *, seed: int | None = None) -> Run:
        """Submit a run's job again, to the same sites; with another seed, if one is given."""
        old = self.run(run).status()
        chosen = old.seed if seed is None else seed
        asked: dict[str, Any] = {
            "sites": old.sites,
            "min_sites": old.min_sites,
            "priority": old.priority,
            "label": old.label or None,
        }
        return self._submit(old.bundle, seed=chosen, **asked)

    def runs(self) -> list[Status]:
        """All runs of the project that were not deleted, the oldest first."""
        return self._channel.ask("GET", "/api/runs", Runs).runs

    def run(self, name: str) -> Run:
        """The run of that name, or the only one whose name begins so.

        Raises:
            InputError: there is none, or several.
        """
        known = [each.run for each in self.runs()]
        found = [each for each in known if each == name] or [each for each in known if name and each.startswith(name)]
        if len(found) != 1:
            hint = "see `hansa job list`"
            raise InputError(
                "several runs begin like that" if found else "no such run", run=name[:200], got=found[:5] or None, hint=hint
            )
        return Run(found[0], self._channel)

    def sites(self) -> list[Site]:
        """The sites of the project."""
        return self._channel.ask("GET", "/api/sites", Sites).sites

    def site(self, name: str) -> Site:
        """The site of that name.

        Raises:
            InputError: there is none.
        """
        known = {site.site: site for site in self.sites()}
        if name not in known:
            raise InputError("no such site", site=name[:200], expected=", ".join(known) or None, hint="see `hansa site list`")
        return known[name]

    def check(self, job: Job | str, *, sites: Sequence[str] | None = None) -> list[Fit]:
        """For each site (None: all that are not revoked), whether its data are what the job takes, by the types that sites publish.

        job: a job or its reference. Nothing is submitted, and no site is asked: what they have said of their data is at the server.

        Raises:
            InputError: there is no such site. JobReferenceError, TraceError: the job is not one.
        """
        made = read_job(job) if isinstance(job, str) else job
        chosen = [self.site(name) for name in sites] if sites is not None else [s for s in self.sites() if s.revoked is None]
        return [fit(made, site) for site in chosen]

    def disable(self, site: str, *, reason: str = "") -> Site:
        """Work with the site no more until it is enabled; what it was asked is given up."""
        return self._channel.ask("POST", f"/api/sites/{self.site(site).site}/disable", Site, body={"reason": reason})

    def enable(self, site: str, *, reason: str = "") -> Site:
        """Work with the site again."""
        return self._channel.ask("POST", f"/api/sites/{self.site(site).site}/enable", Site, body={"reason": reason})

    def audit(self, stream: str = _PROJECT, *, after: int = 0) -> Iterator[Event]:
        """The events of a stream ("project", "run/ID") as they are chained, from event `after` on."""
        while True:
            page = self._audit(stream, after)
            yield from page.events
            if not page.events:
                return
            after = page.after

    def streams(self) -> list[str]:
        """The streams of the server's record."""
        return self._audit(_PROJECT, 1 << 52).streams

    def _audit(self, stream: str, after: int) -> _Page:
        return self._channel.patiently(
            lambda: self._channel.ask("GET", "/api/audit", _Page, query={"stream": stream, "after": after})
        )

    def _submit(self, bundle: str, **asked: Any) -> Run:
        body = {"bundle": bundle, "request": secrets.token_hex(16), **{k: v for k, v in asked.items() if v is not None}}
        made = self._channel.patiently(lambda: self._channel.ask("POST", "/api/runs", Status, body=body))
        return Run(made.run, self._channel)


@dataclass(frozen=True)
class Result:
    """What a run gave: a record for each round, and the final and the best global model of a job that trains one.

    `matrix` and `value`: the content of matrix.json and result.json of a job that gives such, None of another.
    """

    metrics: list[dict[str, Any]]
    model: Tree | None = field(repr=False)
    best: Tree | None = field(repr=False)
    matrix: dict[str, Any] | None = field(default=None, repr=False)
    value: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Run:
    """A run of the federation, by its name."""

    id: str
    _channel: Channel = field(repr=False, compare=False)

    def status(self) -> Status:
        """How it stands now."""
        return self._channel.ask("GET", self._path, Status)

    def events(
        self,
        *,
        after: int = 0,
        follow: bool = True,
        live: bool = True,
        hold_s: float = HOLD_S,
        note: Callable[[str], None] = lambda _: None,
    ) -> Iterator[RunEvent]:
        """What has happened since event `after`, and what happens, until the run has ended; without `follow`, until now.

        With `live`, also the events `metric` and `log`: what sites tell while they work. A server that goes away meanwhile is
        waited for; `note` is then told.
        """
        lines = 0 if live else None
        while True:
            page = self.happened(after, lines, hold_s=hold_s if follow else 0.0, note=note)
            told = sorted(page.told(after), key=lambda event: event.kind in _LAST)  # the last event comes last
            yield from told
            more = page.after != after or page.live_after != lines
            after, lines = page.after, page.live_after
            ended = bool(told) and told[-1].kind in _LAST
            if ended or not (follow or more):
                return

    def happened(
        self, after: int, live_after: int | None = None, *, hold_s: float, note: Callable[[str], None] = lambda _: None
    ) -> Happened:
        """What has happened since event `after`, and live lines from `live_after` on; waits for at most `hold_s` seconds."""
        query = {"after": after, "hold_s": hold_s} | ({} if live_after is None else {"live_after": live_after})
        return self._channel.patiently(lambda: self._channel.ask("GET", f"{self._path}/events", Happened, query=query), note=note)

    def wait(self) -> Status:
        """How it ended, once it has."""
        for _ in self.events(live=False):
            continue
        return self.status()

    def result(self) -> Result:
        """What it gave, once it has ended.

        Raises:
            RunError: it failed or was aborted. RefusedError: it was refused, or its results are not yours; says why.
        """
        status = self.wait()
        if status.state == "refused":
            raise RefusedError("the run was refused", run=self.id, got=status.reason)
        if status.state != "completed":
            raise RunError(f"the run has ended {status.state}", run=self.id, got=status.reason)
        with tempfile.TemporaryDirectory() as place:
            folder = RunFolder.open(self.download(Path(place) / "run", skip=("checkpoints/", "updates/")))
            models = {
                best: folder.load_model(best=best) if (folder.path / f"{name}.safetensors").exists() else None
                for best, name in ((False, "model"), (True, "best"))
            }
            return Result(folder.rounds(), models[False], models[True], *results.load(folder.path))

    def plan(self) -> Plan:
        """What runs where and what leaves, and the hashes of its code."""
        return self._channel.ask("GET", f"{self._path}/plan", Plan)

    def abort(self, reason: str = "") -> Status:
        """End it for good."""
        return self._steer("abort", reason)

    def pause(self, reason: str = "") -> Status:
        """Let it rest until it is resumed."""
        return self._steer("pause", reason)

    def resume(self, reason: str = "") -> Status:
        """Go on with it after a pause."""
        return self._steer("resume", reason)

    def delete(self) -> None:
        """Remove it, and its folder, from the server; that it was, stays on record.

        Raises:
            InputError: it has not ended.
        """
        self._channel.ask("DELETE", self._path, type(None))

    def files(self) -> list[File]:
        """The files of its run folder, as it stands at the server."""
        return self._channel.ask("GET", f"{self._path}/files", Files).files

    def read(self, path: str, *, limit: int = 64 << 20) -> bytes:
        """One file of its run folder, if it has at most `limit` bytes."""
        found = bytearray()
        with self._channel.download(f"{self._path}/files/{path}") as pieces:
            for piece in pieces:
                found += piece
                if len(found) > limit:
                    raise InputError("the file is too long to be read at once", path=path, expected=f"at most {limit:,} bytes")
        return bytes(found)

    def download(self, out: str | Path | None = None, *, skip: Sequence[str] = ()) -> Path:
        """Copy its run folder to `out` (None: `runs/<its name>`), all of it or nothing; where it is then.

        Raises:
            InputError: `out` is not empty. RefusedError: the results are not yours, or the server names a file outside the folder.
        """
        target = Path("runs") / self.id if out is None else Path(out)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError("the folder is not empty", path=str(target), hint="give another one: --out")
        part = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
        try:
            part.mkdir(parents=True)
            for file in self.files():
                if not file.path.startswith(tuple(skip)):
                    self._channel.patiently(lambda file=file: self._fetch(file, part))  # type: ignore[misc]
            part.replace(target)
        except OSError as error:
            raise storage_error(error, target) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return target

    def _fetch(self, file: File, folder: Path) -> None:
        target, got = folder / inside(file.path), 0
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out, self._channel.download(f"{self._path}/files/{file.path}") as pieces:
            for piece in pieces:
                got += len(piece)
                if got > file.bytes + _GROWTH:
                    raise RefusedError("a file is longer than the server says", path=file.path, expected=f"{file.bytes:,} bytes")
                out.write(piece)
        if got < file.bytes:  # one that is being written may have grown
            raise UnreachableError("a file came short", path=file.path, got=f"{got:,} bytes", expected=f"{file.bytes:,}")

    def _steer(self, verb: str, reason: str) -> Status:
        return self._channel.ask("POST", f"{self._path}/{verb}", Status, body={"reason": reason})

    @property
    def _path(self) -> str:
        return f"/api/runs/{self.id}"


def fit(job: Job, site: Site) -> Fit:
    """Whether the site's data are what the job takes."""
    if job.data not in site.data:
        return Fit(site=site.site, fits=False, misfits=[Misfit(job.data, "data of this label", "none")])
    said = site.data[job.data]
    if not said:
        return Fit(site=site.site, fits=None, why="the site publishes no type of these data, or has not yet")
    try:
        found = check(job, {label: read_type(text) for label, text in site.data.items() if text})
    except InputError as error:
        return Fit(site=site.site, fits=None, why=f"what the site says is not understood: {error}")
    return Fit(site=site.site, fits=not found, type=said, misfits=found)


class _Page(msgspec.Struct, frozen=True):
    streams: list[str]
    events: list[Event]
    after: int


def signer(kit: Kit) -> Signer:
    """Who signs a bundle: the kit's name, certificates and key."""
    key = kit.private_key()
    return Signer(kit.name, der(*kit.chain()), lambda data: key.sign(data, ec.ECDSA(hashes.SHA256())))


def inside(path: str) -> Path:
    """The path below a folder that a server named.

    Raises:
        RefusedError: it would land elsewhere.
    """
    place = PurePosixPath(path)
    if not path or place.is_absolute() or ".." in place.parts or "\\" in path or "\0" in path or os.sep != "/":
        raise RefusedError("the server names a file outside the run folder", path=repr(path[:200]), hint="tell its administrator")
    return Path(*place.parts)
