"""The plan of a computation: which functions run at the clients, on what, and what leaves. Printable and hashed.

Nodes at clients are grouped into stages by how many reductions lie before them. All that one stage reads leaves in one task; what a
later stage needs of an earlier one at the same client is computed again there, so that sites keep nothing between tasks.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hansa.core.computation import Computation
from hansa.core.graph import Apply, Broadcast, Constant, Node, Parameter, Record, Reduce, Select, inputs, walk
from hansa.core.types import CLIENTS, SERVER, FederatedType, StructType
from hansa.errors import TraceError


@dataclass(frozen=True, eq=False)
class Stage:
    """One task at each client: labelled broadcasts go in, labelled reads come back, reductions consume them.

    `order` is what a client computes, inputs first; `fresh` marks the functions that no earlier stage ran.
    """

    task: str
    goes: tuple[tuple[str, Broadcast], ...]
    reads: tuple[tuple[str, Node], ...]
    reductions: tuple[Reduce, ...]
    order: tuple[Node, ...]
    fresh: tuple[Apply, ...]

    @property
    def functions(self) -> list[Apply]:
        """The functions that run at the client, in order."""
        return [node for node in self.order if isinstance(node, Apply)]

    @property
    def own(self) -> list[str]:
        """The names of the site's own arguments that are read."""
        return [node.name for node in self.order if isinstance(node, Parameter)]

    @property
    def labels(self) -> dict[int, str]:
        """The label of each read, by node identity."""
        return {id(node): label for label, node in self.reads}


@dataclass(frozen=True, eq=False)
class Plan:
    """The stages of a computation, in order. `str(plan)` is what a site owner reads; `hash` is its SHA-256."""

    computation: Computation
    stages: tuple[Stage, ...]

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of the printed plan."""
        return hashlib.sha256(str(self).encode()).hexdigest()

    @property
    def secure(self) -> tuple[str, ...]:
        """The intrinsics that promise a secure protocol."""
        sums = [reduce.kind for stage in self.stages for reduce in stage.reductions if reduce.kind.startswith("federated_secure")]
        return tuple(dict.fromkeys([*sums, *(apply.secure for stage in self.stages for apply in stage.functions if apply.secure)]))

    def __str__(self) -> str:
        lines = [f"{self.computation.name} {self.computation.type_signature}"]
        for number, stage in enumerate(self.stages, 1):
            lines.append(f"stage {number}: task {stage.task!r}")
            lines.append(f"  receives   {', '.join(label for label, _ in stage.goes) or 'nothing'}")
            lines.append(f"  reads here {', '.join(stage.own) or 'nothing'}")
            lines += [f"  runs       {_shown(apply)}" for apply in stage.functions]
            lines += [f"  leaves     {_leaving(stage, reduce)}" for reduce in stage.reductions]
            lines += [f"  reports    the metrics of {apply.fn.name}" for apply in stage.fresh if _reports(apply)]
        server = [node for node in walk(self.computation.result) if isinstance(node, Apply) and node.placement is SERVER]
        lines += [f"server: {_shown(node)}" for node in server]
        return without_addresses("\n".join(lines))


def without_addresses(text: str) -> str:
    """The text without the memory addresses that an object's plain repr has: they differ from process to process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def plan(computation: Computation) -> Plan:
    """The plan of a traced computation, made once: it is kept on the computation, and lives as long.

    Raises:
        TraceError: the result is at clients (nothing may leave unaggregated), or a server value is used at clients unbroadcast.
    """
    made = computation.__dict__.get("plan")
    if isinstance(made, Plan) and made.computation is computation:  # a copy that was changed has a plan of its own
        return made
    if _at_clients(computation.result):
        raise TraceError(
            f"{computation.name} returns client values",
            got=computation.result.type,
            hint="aggregate them, or say federated_collect; called directly on lists it does run",
        )
    made = Plan(computation, stages_of(computation))
    computation.__dict__["plan"] = made
    return made


def _at_clients(node: Node) -> bool:
    if isinstance(node, Record) and not isinstance(node.type, FederatedType):
        return any(_at_clients(item) for _, item in node.items)
    return node.placement is CLIENTS


def stages_of(computation: Computation) -> tuple[Stage, ...]:
    """The client stages of a computation, in order."""
    nodes = walk(computation.result)
    level: dict[int, int] = {}
    for node in nodes:
        deepest = max((level[id(n)] for n in inputs(node)), default=0)
        level[id(node)] = deepest + 1 if isinstance(node, Reduce) else deepest
    stages: list[Stage] = []
    taken: set[str] = set()
    reductions = [node for node in nodes if isinstance(node, Reduce)]
    for depth in sorted({level[id(r)] for r in reductions}):
        group = tuple(r for r in reductions if level[id(r)] == depth)
        reads = _labelled(n for r in group for n in (r.value, r.weight) if n is not None)
        inside = _client_nodes(node for _, node in reads)
        functions = [n for n in inside if isinstance(n, Apply)]
        new = [f for f in functions if level[id(f)] == depth - 1] or functions
        goes = _labelled((n for n in inside if isinstance(n, Broadcast)), keep=lambda n: n.source)
        name = _unique("+".join(dict.fromkeys(f.fn.name for f in new)) or "read", taken)
        stages.append(Stage(name, goes, reads, group, tuple(inside), tuple(new)))
    return tuple(stages)


def _client_nodes(roots: Iterable[Node]) -> list[Node]:
    """The nodes that are computed at a client, inputs first; a Broadcast is where the server's part begins."""
    seen: dict[int, Node] = {}

    def visit(node: Node) -> None:
        if id(node) in seen:
            return
        if not isinstance(node, Broadcast):
            for source in inputs(node):
                visit(source)
        seen[id(node)] = node

    for root in roots:
        visit(root)
    return list(seen.values())


def _labelled(nodes: Iterable[Any], keep: Any = lambda n: n) -> tuple[tuple[str, Any], ...]:
    """Each node once with a label that tells a person what it is."""
    out: dict[int, tuple[str, Any]] = {}
    taken: set[str] = set()
    for node in nodes:
        if id(node) not in out:
            out[id(node)] = (_unique(_label(keep(node)), taken), node)
    return tuple(out.values())


def _label(node: Node) -> str:
    match node:
        case Parameter():
            return node.name
        case Select():
            return str(node.key) if isinstance(node.key, str) else f"{_label(node.source)}_{node.key}"
        case Apply():
            return node.fn.name
        case Constant():
            return "constant"
        case Broadcast():
            return _label(node.source)
        case Record():
            return "values"
        case Reduce():
            return f"{node.kind}_{_label(node.value)}"


def _unique(name: str, taken: set[str]) -> str:
    candidate, n = name, 1
    while candidate in taken:
        n += 1
        candidate = f"{name}_{n}"
    taken.add(candidate)
    return candidate


def _shown(apply: Apply) -> str:
    args = [_label(a) for a in apply.args] + [f"{k}={_label(v)}" for k, v in apply.kwargs]
    module = getattr(apply.fn.fn, "__module__", None) or "?"
    about = f" with {apply.fn.about}" if apply.fn.about else ""
    backend = f" in {apply.fn.backend}" if apply.fn.backend else ""
    return f"{module}:{apply.fn.name}({', '.join(args)}) -> {apply.fn.result}{backend}{about}"


def _reports(apply: Apply) -> bool:
    return isinstance(apply.fn.result, StructType) and "metrics" in apply.fn.result.fields()


def _leaving(stage: Stage, reduce: Reduce) -> str:
    how = {"using": repr(reduce.using), "aggregate": "aggregate"}.get(reduce.kind, reduce.kind)
    weight = f", weighted by {stage.labels[id(reduce.weight)]}" if reduce.weight is not None else ""
    gate = ", behind the gate" if reduce.kind == "using" else ""
    return f"{stage.labels[id(reduce.value)]}: {how}{weight}{gate}"
