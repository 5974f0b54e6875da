"""A federation for tests: kits, a real server process on loopback, and callers that speak its protocol with httpx."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hansa import codec
from hansa.core.job import Job
from hansa.core.protocols import FederatedData
from hansa.core.task import FLContext, Signal
from hansa.provision.changes import provision
from hansa.provision.project import Organisation, Person, Project, ServerSection, Site
from hansa.runtime.authz.certificates import der
from hansa.runtime.authz.policy import Rules
from hansa.runtime.config import Kit, load_kit
from hansa.runtime.jobs.build import Signer, build
from hansa.runtime.protocol import messages
from hansa.runtime.protocol.messages import Ack, Assignment, Beat, Hello, Offer, Result, Welcome, Work
from hansa.runtime.protocol.session import proof

CHUNK = messages.CHUNK
_WARNINGS = (
    " certificate.ends ",
    " disk.low ",
    " run.not_sealed ",
    " live.not_kept ",
)  # of servers that some tests give what is to be told of


class NotWantedError(Exception):
    """The run has ended, and its blobs are no longer for this site."""


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def make_project(folder: Path, sites: list[str], *, server: ServerSection | None = None, central_keys: bool = True) -> Path:
    project = Project(
        name="hearts",
        server=server or ServerSection(host="127.0.0.1", port=free_port(), listen="127.0.0.1"),
        organisations=(Organisation(name="north"), Organisation(name="south")),
        sites=tuple(Site(name=name, org="north" if i % 2 == 0 else "south") for i, name in enumerate(sites)),
        people=(
            Person(name="ada", org="north", role="project_admin"),
            Person(name="lea", org="north", role="lead"),
            Person(name="leo", org="south", role="lead"),
            Person(name="oda", org="south", role="org_admin"),
            Person(name="max", org="south", role="member"),
            Person(name="aud", org="north", role="auditor"),
        ),
        policy=Rules(min_cohort=1),
        central_keys=central_keys,
    )
    provision(project, folder, now=time.time(), zips=False)
    return folder


@dataclass
class Server:
    """A server process; `kill` is -9, `stop` is SIGTERM. Its clock is ahead of this machine's by so many seconds."""

    kit: Path
    ahead_s: float = 0.0
    process: subprocess.Popen[str] | None = None

    def start(self) -> Server:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _AT_ANOTHER_TIME.format(self.ahead_s), "server", "start", str(self.kit)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("ready https://"):
            raise AssertionError(f"{line!r}: {self.process.communicate(timeout=10)[1]}")
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=10)

    def stop(self) -> tuple[int, str]:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors

    def runs(self) -> list[int]:
        """The pids of the runs' processes."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"run_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


_AT_ANOTHER_TIME = """
import sys, time
own = time.time
time.time = lambda: own() + {}
from hansa.cli import main
sys.exit(main())
"""


@contextlib.contextmanager
def serving(folder: Path, *, ahead_s: float = 0.0) -> Iterator[Server]:
    server = Server(folder / "kits" / "server", ahead_s).start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            code, errors = server.stop()
            said = [line for line in errors.splitlines() if not any(word in line for word in _WARNINGS)]
            assert (code, said) == (0, []), f"exit code {code}\n{errors}"


@dataclass
class Caller:
    """Someone with a kit who asks the server."""

    kit: Kit
    client: httpx.Client
    token: str = ""

    @staticmethod
    def of(folder: Path, *, certificate: bool = True) -> Caller:
        kit = load_kit(folder)
        context = ssl.create_default_context(cafile=str(kit.ca))
        if certificate:
            context.load_cert_chain(kit.certificate, kit.key)
        return Caller(kit, httpx.Client(base_url=kit.url, verify=context, timeout=40.0, trust_env=False))

    @property
    def name(self) -> str:
        return self.kit.name

    def ask(
        self, method: str, path: str, *, content: bytes | None = None, json: Any = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """The answer, with a token that is fetched when it is needed."""
        for _ in range(2):
            if not self.token:
                self.fetch_token()
            url = self.kit.url + path.partition("?")[0]
            own = proof(self.kit.private_key(), method=method, url=url, now=time.time(), token=self.token)
            all_headers = {"Authorization": f"DPoP {self.token}", "DPoP": own, **(headers or {})}
            if json is not None:
                content, all_headers["Content-Type"] = msgspec.json.encode(json), "application/json"
            answer = self.client.request(method, path, content=content, headers=all_headers)
            if answer.status_code != 401:
                return answer
            self.token = ""
        return answer

    def close(self) -> None:
        self.client.close()

    def fetch_token(self) -> httpx.Response:
        own = proof(
            self.kit.private_key(), method="POST", url=f"{self.kit.url}/v1/token", now=time.time(), chain=der(*self.kit.chain())
        )
        answer = self.client.post("/v1/token", headers={"DPoP": own})
        if answer.status_code == 200:
            self.token = answer.json()["token"]
        return answer

    def say(self, path: str, message: messages.Message, kind: type[Any] | None = None) -> Any:
        answer = self.ask("POST", path, content=messages.encode(message))
        assert answer.status_code in (200, 204), answer.text
        return None if kind is None else messages.decode(answer.content, kind)

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def upload(self, content: bytes) -> str:
        digest = blake3(content).hexdigest()
        here = int(self.ask("HEAD", f"/v1/blobs/{digest}").headers["upload-offset"])
        for start in range(here, max(len(content), here + 1), CHUNK):
            headers = {"Upload-Offset": str(start), "Upload-Length": str(len(content))}
            # Where all bytes had come before the server was killed, an empty piece makes the blob whole.
            answer = self.ask("PUT", f"/v1/blobs/{digest}", content=content[start : start + CHUNK], headers=headers)
            assert answer.status_code == 204, answer.text
        return digest

    def download(self, digest: str, size: int) -> bytes:
        parts = []
        for start in range(0, size, CHUNK):
            headers = {"Range": f"bytes={start}-{min(size, start + CHUNK) - 1}"}
            answer = self.ask("GET", f"/v1/blobs/{digest}", headers=headers)
            if answer.status_code == 404:
                raise NotWantedError
            assert answer.status_code in (200, 206), answer.text
            parts.append(answer.content)
        return b"".join(parts)

    def submit(self, reference: str, **options: Any) -> dict[str, Any]:
        key = self.kit.private_key()
        signer = Signer(self.name, der(*self.kit.chain()), lambda data: key.sign(data, ec.ECDSA(hashes.SHA256())))
        bundle = self.upload(build(reference, sign=signer))
        answer = self.ask("POST", "/api/runs", json={"bundle": bundle, **options})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait(self, run: str, until: Callable[[dict[str, Any]], bool], *, timeout_s: float = 60.0) -> list[dict[str, Any]]:
        """The run's events up to the first one that is wanted."""
        seen: list[dict[str, Any]] = []
        after, deadline = 0, time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                page = self.get(f"/api/runs/{run}/events?after={after}&hold_s=5")
                after = page["after"]
                for event in page["events"]:
                    seen.append(event)
                    if until(event):
                        return seen
        raise AssertionError(f"not in {timeout_s} s: {seen[-5:]}")

    def ended(self, run: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        self.wait(run, lambda event: event["kind"] == "run.ended", timeout_s=timeout_s)
        shown: dict[str, Any] = self.get(f"/api/runs/{run}")
        return shown

    def file(self, run: str, path: str) -> bytes:
        answer = self.ask("GET", f"/api/runs/{run}/files/{path}")
        assert answer.status_code == 200, answer.text
        return answer.content


@dataclass
class FakeSite:
    """A site in a thread of the test: does what it is asked, with the job and the data at hand.

    carries: whether it speaks version 2 of the protocol, in which small blobs travel inside messages; else version 1.
    """

    caller: Caller
    job: Job
    data: FederatedData
    refuses: str = ""
    cores: int = 4
    carries: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    hold: Callable[[Assignment], None] = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)
    errors: list[BaseException] = field(default_factory=list)
    acks: list[tuple[int, str]] = field(default_factory=list)
    ended: list[messages.Ended] = field(default_factory=list)
    thread: threading.Thread | None = None

    def hello(self) -> Welcome:
        welcome: Welcome = self.caller.say("/v1/hello", Hello([2, 1] if self.carries else [1], "test", cores=self.cores), Welcome)
        assert welcome.version == 1 + self.carries
        return welcome

    def start(self) -> FakeSite:
        self.hello()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()
        return self

    def close(self) -> None:
        self.stop.set()
        if self.thread is not None:
            self.thread.join(timeout=30)
        self.caller.client.close()
        assert not self.errors, self.errors

    def _serve(self) -> None:
        after = 0
        try:
            while not self.stop.is_set():
                try:
                    work = self.poll(after, hold_s=1.0)
                    self.obey(work)
                    after = work.after
                except httpx.TransportError:  # the server is away
                    self.stop.wait(0.05)
                    after = 0
        except BaseException as error:
            self.errors.append(error)

    def poll(self, after: int, *, hold_s: float) -> Work:
        inside = f"&inside={messages.INSIDE}" if self.carries else ""
        answer = self.caller.ask("GET", f"/v1/work?after={after}&hold_s={hold_s}{inside}")
        assert answer.status_code == 200, answer.text
        own = messages.own_bytes(answer.headers.get(messages.OWN), len(answer.content))
        work: Work = messages.decode(answer.content[:own], Work)
        sizes = {each.body: each.body_bytes for each in work.assignments} | {each.bundle: each.bundle_bytes for each in work.offers}
        for digest in work.inside:
            self.blobs[digest], own = answer.content[own : own + sizes[digest]], own + sizes[digest]
        assert own == len(answer.content)
        assert self.carries or not work.inside
        return work

    def obey(self, work: Work) -> None:
        for offer in work.offers:
            self.answer_offer(offer)
        for assignment in work.assignments:
            self.hold(assignment)
            with contextlib.suppress(NotWantedError):
                ack = self.send(self.result(assignment))
                self.acks.append((assignment.seq, ack.outcome))
        self.ended += work.ended

    def answer_offer(self, offer: Offer) -> Ack:
        code = "refused" if self.refuses else None
        return self.send(Result(offer.run, 0, 1, offer.slot, code=code, message=self.refuses))

    def send(self, result: Result) -> Ack:
        own, blob = messages.encode(result), self.blobs.get(result.blob or "")
        headers = {} if blob is None else {messages.OWN: str(len(own))}
        answer = self.caller.ask("POST", "/v1/results", content=own + (blob or b""), headers=headers)
        assert answer.status_code == 200, answer.text
        ack: Ack = messages.decode(answer.content, Ack)
        return ack

    def result(self, asked: Assignment) -> Result:
        """The work of one assignment, as a simulated site does it, uploaded."""
        assert (asked.body in self.blobs) == self.carries
        body = codec.decode(self.blobs.get(asked.body) or self.caller.download(asked.body, asked.body_bytes))
        ctx = FLContext(
            job=asked.job,
            run=asked.run,
            site=self.caller.name,
            slot=asked.slot,
            round=asked.round,
            seed=asked.seed,
            population=asked.population,
            data=asked.data,
            load=lambda _: self.data.load(asked.slot),
        )
        reply = codec.encode(self.job.serve().execute(asked.task, body, ctx, Signal()))
        digest = blake3(reply).hexdigest() if self.carries else self.caller.upload(reply)
        if self.carries:
            self.blobs[digest] = reply
        return Result(asked.run, asked.seq, asked.attempt, asked.slot, blob=digest, blob_bytes=len(reply))

    def beat(self) -> None:
        self.caller.say("/v1/beats", Beat())
