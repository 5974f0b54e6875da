"""The plan of a job as a document: what runs where and what leaves. Its author signs it, and people and sites' policies read it.

JSON of one version, written in one way: the same job has the same bytes and the same hash in every process. It holds texts and
numbers alone; nothing in it is ever imported or called.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from hansa.core.graph import Apply, Reduce, member_of
from hansa.core.job import Job, Resources
from hansa.core.plan import Plan, Stage, label_of, phases
from hansa.core.types import StructType
from hansa.errors import InputError, VersionError
from hansa.references import module_of, plainly

VERSION: Final = 1
BYTES_LIMIT: Final = 16 << 20  # of a document
COLLECT: Final = "collect"


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a document."""


class Named(_Part, frozen=True, kw_only=True):
    """A value with its type at each client, in the notation of computations."""

    name: str
    type: str

    def __str__(self) -> str:
        return f"{self.name} {self.type}"


class Function(_Part, frozen=True, kw_only=True):
    """A function that runs: `module:name`, the framework that it is written in, what it is given, and its type.

    `about`: the settings it closes over. `remembers`: it asks for its surroundings, and so may keep trees in the site's memory.
    """

    function: str
    backend: str
    takes: list[str]
    gives: str
    about: str = ""
    remembers: bool = False


class Leaving(_Part, frozen=True, kw_only=True):
    """A value that leaves each client: how it is aggregated, by what weight, and whether each site's is checked at the gate.

    `weight_cap`: the largest weight that a site may claim; None: any.
    """

    name: str
    type: str
    how: str
    weight: str = ""
    weight_cap: float | None = None
    gate: bool = False


class StageOf(_Part, frozen=True, kw_only=True):
    """One task at each client, with the types of its phases; `reports` are the functions whose metrics leave."""

    task: str
    prepare: str
    broadcast: str
    work: str
    aggregate: str
    receives: list[Named]
    own: list[Named]
    runs: list[Function]
    leaves: list[Leaving]
    reports: list[str]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"  receives   {', '.join(map(str, self.receives)) or 'nothing'}"
        yield f"  reads here {', '.join(map(str, self.own)) or 'nothing'}"
        for each in self.runs:
            yield f"  runs       {_function(each)}"
        for value in self.leaves:
            weight = f", weighted by {value.weight}" if value.weight else ""
            cap = "" if value.weight_cap is None else f" (at most {value.weight_cap:g})"
            checked = ", behind the gate" if value.gate else ", of each site by itself" if value.how == COLLECT else ""
            yield f"  leaves     {value.name} {value.type}: {value.how}{weight}{cap}{checked}"
        for name in self.reports:
            yield f"  reports    the metrics of {name}"
        if keeping := [each.function.rpartition(":")[2] for each in self.runs if each.remembers]:
            yield f"  may keep   what {', '.join(keeping)} remembers at the site; it does not leave"


class Planned(_Part, frozen=True, kw_only=True):
    """A computation: its stages in order, what runs at the server, and the type of the last phase."""

    name: str
    type: str
    stages: list[StageOf]
    server: list[Function]
    report: str

    def __str__(self) -> str:
        lines = [f"{self.name} {self.type}"]
        for number, stage in enumerate(self.stages, 1):
            lines += [f"stage {number}: task {stage.task!r}", str(stage)]
        return "\n".join([*lines, *(f"server: {_function(each)}" for each in self.server)])


class Document(_Part, frozen=True, kw_only=True, dict=True):
    """What a job is. `filters` run at each site on what leaves, `executor` serves tasks that are no computation's.

    `secure`: intrinsics that promise a protocol by which nobody sees a site's own value.
    """

    format: Literal["hansa plan"] = "hansa plan"
    version: int = VERSION
    job: str
    data: str
    about: str
    computations: list[Planned]
    filters: list[str]
    executor: str
    secure: list[str]
    requires: list[str]
    environment: str
    cores: int
    gpus: int
    memory_mb: int

    @functools.cached_property
    def content(self) -> bytes:
        """The document's one way of being written: JSON with sorted keys."""
        return msgspec.json.encode(self, order="deterministic")

    @property
    def hash(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def collected(self) -> dict[str, list[str]]:
        """By task, what leaves that nobody aggregates: each site's value by itself."""
        stages = [stage for computation in self.computations for stage in computation.stages]
        found = {stage.task: [value.name for value in stage.leaves if value.how == COLLECT] for stage in stages}
        return {task: names for task, names in found.items() if names}

    def phases(self) -> str:
        """The types of the phases of each stage, a line each."""
        lines = []
        for computation in self.computations:
            for stage in computation.stages:
                lines.append(f"{computation.name}, task {stage.task!r}")
                lines += [f"  {name:<10} {getattr(stage, name)}" for name in ("prepare", "broadcast", "work", "aggregate")]
            lines += [f"{computation.name}", f"  report     {computation.report}"]
        return "\n".join(lines)

    def __str__(self) -> str:
        lines = [f"job {self.job} on {self.data!r}: {self.about}", *map(str, self.computations)]
        lines += [f"filter at each site: {each}" for each in self.filters]
        lines += [f"executor at each site: {self.executor}"] if self.executor else []
        lines += [f"promises a secure protocol for {', '.join(self.secure)}"] if self.secure else []
        asked = Resources(cores=self.cores, gpus=self.gpus, memory_mb=self.memory_mb)
        lines += [f"environment at each site: {self.environment!r}"] if self.environment else []
        return "\n".join([*lines, *([f"resources at each site: {asked!r}"] if asked != Resources() else [])])


class _Head(msgspec.Struct, frozen=True):
    """What documents of all versions have."""

    format: Literal["hansa plan"]
    version: int


def read_document(content: bytes) -> Document:
    """The document in the bytes, if they are as `Document.content` writes them.

    Raises:
        VersionError: it is of another version. InputError: it is no such document, or not written in that one way.
    """
    if len(content) > BYTES_LIMIT:
        raise InputError("the plan is too long", got=f"{len(content):,} bytes", expected=f"at most {BYTES_LIMIT:,}")
    try:
        head = msgspec.json.decode(content, type=_Head)
        if head.version != VERSION:
            hint = "upgrade hansa here" if head.version > VERSION else "its author upgrades hansa and submits the job again"
            raise VersionError("a plan of another version", got=head.version, expected=VERSION, hint=hint)
        found = msgspec.json.decode(content, type=Document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not a plan: {error}") from error
    if found.content != content:
        raise InputError("a plan is written in one way", hint="sorted keys, no spaces: it was changed after it was made")
    if _printed(found) != found:
        raise InputError("a plan's texts are printed as they are", hint="it has line ends or signs that a terminal would act on")
    return found


def document_of(job: Job) -> Document:
    """The document of a job; its computations are traced, nothing is run.

    >>> import hansa as hs
    >>> print(document_of(hs.Job("rows", hs.Sequence(lambda federation: 3))))
    job rows on 'data': function
    """
    made = Document(
        job=job.name,
        data=job.data,
        about=_text(getattr(job.workflow, "about", "") or type(job.workflow).__name__),
        computations=[planned(each) for each in job.plans],
        filters=[_text(repr(each)) for each in job.filters],
        secure=list(dict.fromkeys(name for each in job.plans for name in each.secure)),
        executor="" if job.executor is None else _place(type(job.executor)),
        requires=sorted(job.requires),
        environment=job.environment,
        cores=job.resources.cores,
        gpus=job.resources.gpus,
        memory_mb=job.resources.memory_mb,
    )
    return _printed(made)


def planned(made: Plan) -> Planned:
    """A computation's part of a document."""
    return Planned(
        name=made.computation.name,
        type=str(made.computation.type_signature),
        stages=[_stage(each) for each in made.stages],
        server=[_run(each) for each in made.at_server],
        report=str(made.report),
    )


def _stage(stage: Stage) -> StageOf:
    types = {name: str(kind) for name, kind in phases(stage)._asdict().items()}
    return StageOf(
        task=stage.task,
        **types,
        receives=[Named(name=label, type=str(member_of(node.type))) for label, node in stage.goes],
        own=[Named(name=n.name, type=str(member_of(n.type))) for n in stage.parameters],
        runs=[_run(each) for each in stage.functions],
        leaves=[_leaving(stage, each) for each in stage.reductions],
        reports=[each.fn.name for each in stage.fresh if _reports(each)],
    )


def _run(apply: Apply) -> Function:
    return Function(
        function=_place(apply.fn.fn, apply.fn.name),
        backend=apply.fn.backend or "python",
        takes=[*map(label_of, apply.args), *(f"{name}={label_of(value)}" for name, value in apply.kwargs)],
        gives=str(apply.fn.result),
        about=_text(apply.fn.about),
        remembers="ctx" in apply.fn.wants,
    )


def _leaving(stage: Stage, reduce: Reduce) -> Leaving:
    return Leaving(
        name=stage.labels[id(reduce.value)],
        type=str(member_of(reduce.value.type)),
        how=_text(_how(reduce)),
        weight="" if reduce.weight is None else stage.labels[id(reduce.weight)],
        weight_cap=reduce.weight_cap if math.isfinite(reduce.weight_cap) else None,
        gate=reduce.kind == "using",
    )


def _how(reduce: Reduce) -> str:
    if reduce.kind == "aggregate":
        return f"aggregate by {', '.join(_place(each) for each in reduce.using if each is not None)}"
    return repr(reduce.using) if reduce.kind == "using" else reduce.kind


def _function(each: Function) -> str:
    backend = "" if each.backend == "python" else f" in {each.backend}"
    about = f" with {each.about}" if each.about else ""
    return f"{each.function}({', '.join(each.takes)}) -> {each.gives}{backend}{about}"


def _text(given: str) -> str:
    """A description without what differs from process to process: addresses in memory, where a file lies."""
    return plainly(re.sub(r" at 0x[0-9a-fA-F]+", "", given))


def _printed(document: Document) -> Document:
    """The document with everything in its texts written out that would begin a line, or move in a terminal, what is not said so."""
    found: Document = msgspec.convert(_written_out(msgspec.to_builtins(document)), Document)
    return found


def _written_out(part: Any) -> Any:
    if isinstance(part, str):
        return part if part.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in part)
    if isinstance(part, list):
        return [_written_out(item) for item in part]
    return {key: _written_out(item) for key, item in part.items()} if isinstance(part, dict) else part


def _place(what: object, name: str = "") -> str:
    return f"{module_of(what)}:{name or getattr(what, '__name__', type(what).__name__)}"


def _reports(apply: Apply) -> bool:
    return isinstance(apply.fn.result, StructType) and "metrics" in apply.fn.result.fields()
