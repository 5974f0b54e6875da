"""Run a job on simulated sites: in a loop, in a pool of processes, or with vectorised clients."""

from __future__ import annotations

import contextlib
import operator
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, SupportsIndex, cast, get_args

import msgspec
from threadpoolctl import threadpool_limits

from hansa import codec
from hansa.core import trees
from hansa.core.job import Job
from hansa.core.protocols import FederatedData
from hansa.core.task import Reply, Task
from hansa.core.trees import Tree
from hansa.core.workflow import Outcome
from hansa.errors import ConfigError, HansaError, Interrupted, QuorumError
from hansa.record import results
from hansa.record.folder import RunFolder
from hansa.record.info import Reference, RunInfo
from hansa.record.progress import Mode, Progress
from hansa.record.series import last_global
from hansa.registry import nearest
from hansa.simulation.crews import Loop, Vectorised
from hansa.simulation.faults import Faults
from hansa.simulation.federation import Saved, SimulatedFederation
from hansa.simulation.journal import Journal
from hansa.simulation.lock import running
from hansa.simulation.pool import Pool, Start
from hansa.simulation.provenance import machine, require_same, versions
from hansa.simulation.sites import Crew, Sites, by_label

Engine = Literal["loop", "pool", "vectorised"]
ENGINES = ("loop", "pool", "vectorised")


@dataclass(frozen=True)
class Settings:
    """How a job is simulated.

    engine: `loop`, `pool` (of `workers` processes) or `vectorised`. start: how workers start. deterministic: one BLAS thread, so
    that one seed gives one model on one kind of machine; without it the workers share the cores. keep_updates: store what every
    site sends, for `hansa runs verify`. checkpoint_every: rounds between checkpoints. progress: what is shown on stderr; `silent`
    is one line at the end, where sites were refused.
    """

    engine: Engine = "loop"
    workers: int = 1
    start: Start = "fork"
    deterministic: bool = True
    keep_updates: bool = False
    checkpoint_every: int = 1
    progress: Mode = "silent"

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError("no such engine", path="engine", got=self.engine, hint=nearest(self.engine, list(ENGINES)))
        for name, known in (("start", get_args(Start)), ("progress", get_args(Mode))):
            if getattr(self, name) not in known:
                raise ConfigError(f"no such {name}", path=name, got=repr(getattr(self, name)), expected=", ".join(known))
        for name in ("deterministic", "keep_updates"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is True or False", path=name, got=repr(getattr(self, name)))
        for name in ("workers", "checkpoint_every"):
            if type(count := getattr(self, name)) is not int or count < 1:
                raise ConfigError(f"{name} is a number of at least 1", path=name, got=repr(count))
        if self.workers > 1 and self.engine != "pool":
            raise ConfigError("several workers are a pool", path="engine", expected="pool", got=self.engine)

    @property
    def threads(self) -> int:
        """The threads that each process computes with."""
        return 1 if self.deterministic else max(1, (os.cpu_count() or 1) // self.workers)


@dataclass(frozen=True)
class Result:
    """What a simulation gave: a record for each round, and the workflow's own result.

    `model` and `best` are the final and the best global model of a job that trains one. `run` is the run folder, if there is one.
    `memory` is what the simulated sites kept, by slot and name.
    """

    metrics: list[dict[str, Any]]
    value: Any
    sites: Sequence[str] = field(repr=False, default=())
    run: Path | None = None
    memory: Mapping[int, Mapping[str, Tree]] = field(repr=False, default_factory=dict)

    @property
    def model(self) -> Tree:
        """The final global model."""
        return self._outcome.model

    @property
    def best(self) -> Tree:
        """The best global model by the monitored metric, after the round."""
        return self._outcome.best

    @property
    def _outcome(self) -> Outcome:
        if (trained := results.outcome_of(self.value)) is not None:
            return trained
        raise ConfigError("this job's workflow trains no model", got=type(self.value).__name__, hint="its result is `.value`")


@dataclass(frozen=True)
class Origin:
    """Where a job came from: how it is loaded again, and its resolved settings. Both are written to run.json."""

    reference: Reference | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def simulate(
    job: Job,
    data: FederatedData | Mapping[str, FederatedData],
    *,
    seed: int | None = None,
    settings: Settings | None = None,
    faults: Faults | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    origin: Origin | None = None,
    **options: Any,
) -> Result:
    """Run a job on simulated sites and return its metrics and models.

    data: the federated data set, or one by label. seed: of every random stream (None: the job's, else 0). out: the run folder to
    write; with `resume`, the one to go on with. origin: what run.json says of how the job is loaded again. `options` are fields
    of Settings: `engine="pool", workers=2`.

    Same seed, same bits, for any number of workers; vectorised clients equal the loop within 1e-5.

    Raises:
        ConfigError: an argument is not what it should be; names it. DataError: a label of the job is not in `data`.
        InputError: the folder is another run's, or one that has ended, or runs already.
        QuorumError: a round had too few usable replies.
        Interrupted: Ctrl-C; with `out`, the run can be resumed.
    """
    for path, given, kinds, hint in (
        ("job", job, Job, "hs.Job(name, workflow); a reference is for `hansa run`"),
        ("settings", settings, Settings | None, "settings=Settings(workers=2), or workers=2 itself"),
        ("faults", faults, Faults | None, "faults=Faults(dropout=0.1)"),
        ("out", out, str | Path | None, "the path of a folder"),
        ("origin", origin, Origin | None, None),
    ):
        if not isinstance(given, kinds):
            raise ConfigError(f"not what simulate takes as {path}", path=path, got=type(given).__name__, hint=hint)
    how = _settings(settings, options)
    if how.keep_updates and out is None:
        raise ConfigError("updates are kept in the run folder", path="keep_updates", hint="give out=")
    sets = by_label(job, data)
    names = sets[job.data].sites
    chosen = _seed(job.seed or 0 if seed is None else seed)
    folder = None if out is None else Path(out)
    with contextlib.ExitStack() as held:
        recorder = _Recorder.make(job, names, chosen, how, folder, resume, origin or Origin(), held)
        return recorder.run(Sites(job, job.serve(), sets, names, chosen, recorder.id), faults or Faults())


def _seed(seed: object) -> int:
    try:
        return operator.index(cast(SupportsIndex, seed))
    except TypeError:
        raise ConfigError("a seed is an integer", path="seed", got=repr(seed)) from None


def _settings(settings: Settings | None, options: Mapping[str, Any]) -> Settings:
    if settings is not None and options:
        raise ConfigError("give settings or options, not both", got=sorted(options))
    known = list(Settings.__dataclass_fields__)
    for name in options:
        if name not in known:
            raise ConfigError(f"simulate takes no {name!r}", hint=nearest(name, known))
    if options.get("workers", 1) != 1:
        options = {"engine": "pool", **options}
    return settings or Settings(**options)


def crew_of(sites: Sites, how: Settings) -> Crew:
    """Who does the sites' work."""
    if how.engine == "pool":
        return Pool(sites, how.workers, start=how.start, threads=how.threads)
    return Vectorised(sites) if how.engine == "vectorised" else Loop(sites)


@contextlib.contextmanager
def threads(how: Settings) -> Iterator[None]:
    """One BLAS thread while a deterministic run is under way; restored after."""
    if not how.deterministic:
        yield
        return
    with threadpool_limits(1, user_api="blas"):
        yield


@dataclass
class _Recorder:
    """Keeps the records of a run, in memory and in its folder where it has one."""

    folder: RunFolder | None
    info: RunInfo
    resumed: bool
    rounds: int
    how: Settings
    exact: bool = True
    records: list[dict[str, Any]] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    raised: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    progress: Progress | None = None

    @property
    def id(self) -> str:
        """The run's name."""
        return self.info.id

    @staticmethod
    def make(
        job: Job,
        names: Sequence[str],
        seed: int,
        how: Settings,
        out: Path | None,
        resume: bool,
        origin: Origin,
        held: contextlib.ExitStack,
    ) -> _Recorder:
        """The recorder of a run. Its folder is held until `held` ends; nothing is written there yet."""
        rounds = results.planned(job.workflow, len(names))
        if out is None:
            if resume:
                raise ConfigError("a run is resumed from its folder", path="out", hint="give out=")
            return _Recorder(None, RunInfo(id=job.name, job=job.name), False, rounds, how)
        exact = how.deterministic
        if resume:
            folder = RunFolder.open(out)
            held.enter_context(running(folder.path))
            before = folder.info
            require_same(before, job, seed, names, engine=how.engine)
            exact = exact and before.deterministic
            now = {**_engine(how), "deterministic": how.deterministic and before.deterministic}
            info = msgspec.structs.replace(before, state="running", error=None, finished=None, **now)
        else:
            folder = RunFolder.create(out, job.name)
            held.enter_context(running(folder.path))
            info = RunInfo(
                id=folder.id,
                job=job.name,
                job_hash=job.hash,
                reference=origin.reference,
                settings=dict(origin.settings),
                plan=job.describe(),
                seed=seed,
                slots=list(names) if len(names) <= 10_000 else len(names),
                versions=versions(),
                machine=machine(),
                state="running",
                rounds=rounds,
                started=datetime.now(UTC).isoformat(timespec="milliseconds"),
                **_engine(how),
            )
        return _Recorder(folder, info, resume, rounds, how, exact)

    def run(self, sites: Sites, faults: Faults) -> Result:
        try:
            if self.folder is not None:
                self.folder.write_info(self.info)
            saved = self._saved() if self.resumed else None
            # The crew before anything of the job runs here: workers are forked from a clean process.
            with contextlib.closing(crew_of(sites, self.how)) as crew, self._shown(sites, saved) as self.progress:
                federation = self._federation(sites, crew, faults, saved)
                with threads(self.how):
                    value = sites.job.workflow(federation)
                federation.journal.end()
            return self._finish(value, sites.names, federation.memory)
        except KeyboardInterrupt:
            self._end("paused")
            where = str(self.folder.path) if self.folder else None
            raise Interrupted("interrupted", run=where, hint=self._how_to_resume()) from None
        except BaseException as error:
            self._end("failed", error)
            self._add_traceback(error)
            raise

    def _shown(self, sites: Sites, saved: Saved | None) -> Progress:
        done = saved[0] if saved else 0
        return Progress(self.rounds, sites=len(sites.names), title=sites.job.name, done=done, mode=self.how.progress)

    def _federation(self, sites: Sites, crew: Crew, faults: Faults, saved: Saved | None) -> SimulatedFederation:
        return SimulatedFederation(
            sites.names,
            sites.seed,
            crew,
            faults,
            self._journal(sites.names),
            on_report=self._report,
            on_checkpoint=self._checkpoint if self.folder else None,
            on_answer=lambda answered, asked: self.progress.sites_done(answered, asked) if self.progress else None,
            on_failure=self._failure,
            outgoing=sites.job.outgoing,
            on_tracked=self.folder.append_live if self.folder else lambda _: None,
            keep=self.folder.save_update if self.folder and self.how.keep_updates else None,
            saved=saved,
        )

    def _how_to_resume(self) -> str:
        return f"hansa run --resume {self.folder.path}" if self.folder else "without `out` there is nothing to resume"

    def _journal(self, names: Sequence[str]) -> Journal:
        if self.folder is None:
            return Journal()
        return Journal.open(self.folder.path, names, exact=self.exact) if self.resumed else Journal(self.folder.path, names)

    def _saved(self) -> Saved | None:
        folder = cast(RunFolder, self.folder)
        checkpoint, reported = folder.latest_checkpoint(), folder.rounds()
        folder.resume_from(-1 if checkpoint is None else checkpoint.round)  # -1: not even what was reported before round 1
        self.records = folder.rounds()
        if checkpoint is None:
            if reported and self.rounds:  # other workflows are replayed from their journal
                print_note(f"{self.id}: there is no checkpoint of the {len(reported)} rounds so far; it begins again at round 1")
            return None
        for note in checkpoint.notes:
            print_note(note)
        return checkpoint.round, checkpoint.tree, checkpoint.meta

    def _report(self, record: dict[str, Any]) -> None:
        record = {"round": self.records[-1]["round"] + 1 if self.records else 1, **record}  # a workflow of one's own may not count
        if self.raised:
            record, self.raised = {**record, "raised": list(self.raised.values())}, {}
        self.records.append(record)
        if self.folder is not None:
            self.folder.append_round(record)
        if self.progress is not None:
            self.progress.round_done(record)

    def _checkpoint(self, number: int, tree: Tree, notes: Mapping[str, Any]) -> None:
        if self.folder is None:
            return
        if self.how.keep_updates and "state" in tree:  # what Rounds calls it, and `hansa runs verify` recomputes
            self.folder.save_digest(number, codec.digest(cast(Tree, tree["state"])))
        if number % self.how.checkpoint_every == 0 or number == self.rounds:
            self.folder.save_checkpoint(number, tree, notes)

    def _failure(self, reply: Reply, task: Task) -> None:
        """Say what went wrong at a site; the traceback of one line of code once, in the record once a round."""
        failure = reply.failure
        if failure is None:
            return
        self.refused.setdefault(reply.site, _first_line(task.round, failure.message))
        kind = f"{task.name} {failure.code} {_raised_at(failure.trace)}"  # the message may name what differs from site to site
        if failure.trace:
            entry = {"site": reply.site, "task": task.name, "message": failure.message, "trace": failure.trace}
            self.raised.setdefault(kind, entry)
        if self.progress is not None:
            text = f"round {task.round}: site {reply.site!r} refused: {failure.message}"
            self.progress.note(text if kind in self.told or not failure.trace else f"{text}\n{failure.trace.rstrip()}")
        self.told.add(kind)

    def _add_traceback(self, error: BaseException) -> None:
        """Where nothing was shown, the error of a round without a quorum brings the first site's traceback along."""
        first = next(iter(self.raised.values()), None)
        if self.how.progress == "silent" and isinstance(error, QuorumError) and first is not None:
            where = f"site {first['site']!r}, round {error.round}, task {first['task']!r}"
            error.add_note(f"{where}:\n{first['trace'].rstrip()}")

    def _tell_refusals(self, sites: int) -> None:
        """One line for who was shown nothing: a model that some had no part in should not look like that of all."""
        for record in self.records:
            for entry in record.get("refused", ()):
                if isinstance(entry, Mapping) and "site" in entry:
                    self.refused.setdefault(entry["site"], _first_line(record["round"], str(entry.get("message", ""))))
        if self.how.progress == "silent" and self.refused:
            site, text = next(iter(self.refused.items()))
            print_note(f"{self.info.job}: sites with refused replies: {len(self.refused)} of {sites}; first {site!r}, {text}")

    def _end(self, state: Literal["paused", "failed"], error: BaseException | None = None) -> None:
        """Write how the run ended. If even that cannot be written, the error that ended the run is the one to see."""
        if self.folder is not None:
            with contextlib.suppress(HansaError):
                self.folder.finish(state, error=None if error is None else str(error) or type(error).__name__)

    def _finish(self, value: Any, names: Sequence[str], memory: Mapping[int, Mapping[str, Tree]]) -> Result:
        if self.folder is not None:
            summary: dict[str, Any] = {"global": last_global(self.records)} if self.records else {}
            notes = results.save(self.folder, value)
            if (trained := results.outcome_of(value)) is not None:
                summary |= {"rounds": trained.rounds, "best_round": trained.best_round}
            for note in notes + self.folder.finish("completed", summary=summary):
                print_note(note)
        self._tell_refusals(len(names))
        if isinstance(value, Outcome):  # who changes one of the models changes neither the other nor the state
            value = replace(value, model=trees.copy(value.model), best=trees.copy(value.best))
        return Result(self.records, value, names, None if self.folder is None else self.folder.path, memory)


def _first_line(number: int, message: str) -> str:
    return f"in round {number}: {message.partition(chr(10))[0]}"


def _raised_at(trace: str) -> str:
    """The line of code that raised, as a traceback says it last."""
    frames = re.findall(r'^  File "(.*)", line (\d+)', trace, re.MULTILINE)
    return ":".join(frames[-1]) if frames else ""


def print_note(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{text}\n")


def _engine(how: Settings) -> dict[str, Any]:
    return {"engine": how.engine, "workers": how.workers, "deterministic": how.deterministic, "threads": how.threads}
