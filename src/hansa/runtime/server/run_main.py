"""The process of one run: loads the job of a bundle and runs its workflow over the deployed federation. Started by the server.

It ends when the server does. Started again, it goes on from its last checkpoint, and the server answers what it had asked before.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from threadpoolctl import threadpool_limits

from hansa.core.job import Job
from hansa.core.task import Aborted, Reply, Task
from hansa.errors import ClientError, HansaError, RunError
from hansa.record import results
from hansa.record.folder import RunFolder
from hansa.record.info import RunInfo
from hansa.record.series import last_global
from hansa.runtime.jobs.link import Done, Ending, Link, Ready, ServerGone, Start
from hansa.runtime.manifest import load_job
from hansa.runtime.sandbox import SandboxError, Walls, enclose
from hansa.runtime.server.federation import DeployedFederation, RunBlobs, Saved
from hansa.runtime.store.blobs import FileBlobs

_PR_SET_PDEATHSIG: Final = 1
_CHUNK: Final = 1 << 20
_LIBRARIES: Final = {"hansa": "hansa", "numpy": "numpy", "torch": "torch", "scikit-learn": "sklearn"}  # bits depend on these


@dataclass
class _Recorder:
    """Keeps a run's records in its folder, as a simulation does."""

    start: Start
    folder: RunFolder
    rounds: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)
    raised: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def open(start: Start) -> tuple[_Recorder, Saved | None]:
        """The recorder of a new run, or of one that goes on, with the checkpoint from which it does."""
        path = Path(start.folder)
        if not (path / "run.json").exists():
            return _Recorder(start, RunFolder.create(path, start.run)), None
        folder = RunFolder.open(path)
        checkpoint = folder.latest_checkpoint()
        folder.resume_from(-1 if checkpoint is None else checkpoint.round)
        recorder = _Recorder(start, folder, records=folder.rounds())
        return recorder, None if checkpoint is None else (checkpoint.round, checkpoint.tree, checkpoint.meta)

    def begin(self, job: Job) -> None:
        """Write run.json."""
        self.rounds = results.planned(job.workflow, len(self.start.sites))
        self.folder.write_info(
            RunInfo(
                id=self.start.run,
                job=job.name,
                job_hash=job.hash,
                plan=job.describe(),
                seed=self.start.seed,
                slots=self.start.sites,
                engine="deployed",
                workers=len(self.start.sites),
                versions=_versions(),
                machine={"system": platform.system(), "cpu": platform.machine()},
                state="running",
                rounds=self.rounds,
                started=datetime.fromtimestamp(self.start.submitted, UTC).isoformat(timespec="milliseconds"),
            )
        )

    def report(self, record: dict[str, Any]) -> dict[str, Any]:
        """Add a line to metrics.jsonl; the line."""
        record = {"round": self.records[-1]["round"] + 1 if self.records else 1, **record}
        if self.raised:
            record, self.raised = {**record, "raised": list(self.raised.values())}, {}
        self.records.append(record)
        self.folder.append_round(record)
        return record

    def failure(self, reply: Reply, task: Task) -> None:
        """Keep what a site's code raised for the round's record; of each kind once."""
        failure = reply.failure
        if failure is not None and failure.code == ClientError.code:
            entry = {"site": reply.site, "task": task.name, "message": failure.message, "trace": failure.trace}
            self.raised.setdefault(f"{task.name} {failure.code} {failure.message}", entry)

    def finish(self, value: Any, blobs: RunBlobs) -> Done:
        """Write what came of it; the last line to the server."""
        summary: dict[str, Any] = {"global": last_global(self.records)} if self.records else {}
        models: dict[str, str] = {}
        notes = results.save(self.folder, value)
        if (trained := results.outcome_of(value)) is not None:
            summary |= {"rounds": trained.rounds, "best_round": trained.best_round}
            models = {name: _stored(self.folder.path / f"{file}.safetensors", blobs) for name, file in _MODELS.items()}
        self._end("completed", notes, summary=summary)
        return Done(state="completed", models=models)

    def fail(self, error: BaseException) -> Done:
        """Write why it failed; the last line to the server."""
        reason = str(error) or type(error).__name__
        with contextlib.suppress(HansaError):  # the error that ended the run is the one to see
            self._end("failed", error=reason)
        return Done(state="failed", reason=reason, code=getattr(error, "code", "failed"))

    def _end(self, state: Literal["completed", "failed"], notes: Sequence[str] = (), **more: Any) -> None:
        for note in [*notes, *self.folder.finish(state, **more)]:
            sys.stderr.write(f"{note}\n")


_MODELS: Final = {"final": "model", "best": "best"}


def main(descriptor: int) -> int:
    """Run what the server says over the socket of that number; the process's exit code."""
    _end_with_parent()
    server = Link(socket.socket(fileno=descriptor))
    try:
        start = server.receive()
        if not isinstance(start, Start):
            raise RunError("the server did not say what to run")
        failed = _enclosed(start)
        if start.ended is not None:
            return 1 if failed else _seal(start, start.ended)
        server.send(failed or _run(start, server))
    except (ServerGone, Aborted):  # the server goes on with it, or has ended it
        return 1
    return 0


def _enclosed(start: Start) -> Done | None:
    """Enclose this process, before any of the job's code; why the run has failed, if that cannot be."""
    folder, room = Path(start.folder), Path(start.room)
    folder.mkdir(mode=0o700, exist_ok=True)
    walls = Walls(
        mode=start.sandbox,
        folder=room,
        folders=(folder, Path(start.handed)),
        openable=(Path(start.blobs),),
        hidden=tuple(map(Path, start.hidden)),
        shown=(Path(start.source),),
        data_bytes=start.memory_bytes,
        file_bytes=start.file_bytes,
    )
    try:
        enclose(walls)
    except SandboxError as error:
        return Done(state="failed", reason=str(error), code=error.code)
    return None


def _seal(start: Start, ended: Ending) -> int:
    """Write into the run folder how the run has ended, if it does not say so; the exit code."""
    try:
        folder = RunFolder.open(start.folder)
        if folder.info.state == "running":
            folder.finish(ended, error=start.reason or None)
    except HansaError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _run(start: Start, server: Link) -> Done:
    """Run the workflow. What the user's code raises becomes the reason for the run's failure: the run's outermost call."""
    recorder, saved = _Recorder.open(start)
    blobs = RunBlobs(Path(start.blobs), FileBlobs(start.handed, durable=False))  # durable when the server has taken them over
    try:
        job = load_job(Path(start.source), start.reference)
        recorder.begin(job)
        save = recorder.folder.save_checkpoint
        federation = DeployedFederation(start, server, blobs, recorder.report, save, recorder.failure, saved)
        federation.outgoing = job.outgoing
        server.send(Ready(rounds=recorder.rounds, restored=saved[0] if saved else 0))
        with threadpool_limits(1, user_api="blas"):
            value = job.workflow(federation)
        federation.end()
        return recorder.finish(value, blobs)
    except (ServerGone, Aborted):
        raise
    except (Exception, SystemExit) as error:
        if not isinstance(error, HansaError):
            _print_trace(error)
        return recorder.fail(error)


def _stored(path: Path, blobs: RunBlobs) -> str:
    with path.open("rb", buffering=0) as file:
        return blobs.put(iter(lambda: file.read(_CHUNK), b"")).digest


def _versions() -> dict[str, str]:
    """The versions that bits depend on."""
    found = {"python": platform.python_version()}
    for name in [each for each in _LIBRARIES if each == "hansa" or _LIBRARIES[each] in sys.modules]:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _print_trace(error: BaseException) -> None:
    import traceback

    sys.stderr.write("".join(traceback.format_exception(error)))


def _end_with_parent() -> None:
    """Ask the kernel to end this process when its server ends, however that ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        raise ServerGone("the server has gone")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
