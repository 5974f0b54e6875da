"""The plan of a computation: which functions run at the clients, on what, and what leaves.

Nodes at clients are grouped into stages by how many reductions lie before them. All that one stage reads leaves in one task; what a
later stage needs of an earlier one at the same client is computed again there, so that sites keep nothing between tasks. As a
document, which people read and sign, it is in `hansa.document`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from hansa.core.computation import Computation
from hansa.core.graph import Apply, Broadcast, Constant, Node, Parameter, Record, Reduce, Select, inputs, walk
from hansa.core.types import CLIENTS, SERVER, FederatedType, FunctionType, StructType
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
    def parameters(self) -> list[Parameter]:
        """The site's own arguments that are read."""
        return [node for node in self.order if isinstance(node, Parameter)]

    @property
    def labels(self) -> dict[int, str]:
        """The label of each read, by node identity."""
        return {id(node): label for label, node in self.reads}


@dataclass(frozen=True, eq=False)
class Plan:
    """The stages of a computation, in order."""

    computation: Computation
    stages: tuple[Stage, ...]

    @property
    def secure(self) -> tuple[str, ...]:
        """The intrinsics that promise a secure protocol."""
        sums = [reduce.kind for stage in self.stages for reduce in stage.reductions if reduce.kind.startswith("federated_secure")]
        return tuple(dict.fromkeys([*sums, *(apply.secure for stage in self.stages for apply in stage.functions if apply.secure)]))

    @property
    def report(self) -> FunctionType:
        """The type of the last phase: from the server's values that the result is made of to the result."""
        return FunctionType(_struct(_needed([self.computation.result])), self.computation.result.type)

    @property
    def at_server(self) -> list[Apply]:
        """The functions that run at the server, in order."""
        return [node for node in walk(self.computation.result) if isinstance(node, Apply) and node.placement is SERVER]


class Phases(NamedTuple):
    """The types of a stage's phases, as of TFF's DistributeAggregateForm: what each takes is given or was made."""

    prepare: FunctionType
    broadcast: FunctionType
    work: FunctionType
    aggregate: FunctionType


def phases(stage: Stage) -> Phases:
    """The types of a stage's phases.

    The server prepares what goes out and what reductions start from; it is broadcast; each client works with it and with its own
    data; what it reads is aggregated.
    """
    sources = [(label, node.source.type) for label, node in stage.goes]
    starts = _struct(_labelled(r.start for r in stage.reductions if r.start is not None))
    own = [(node.name, node.type) for node in stage.parameters]
    goes, reads = StructType([(label, node.type) for label, node in stage.goes]), _struct(stage.reads)
    needed = _needed([*(node.source for _, node in stage.goes), *(r.start for r in stage.reductions if r.start is not None)])
    return Phases(
        prepare=FunctionType(_struct(needed), StructType({"goes": StructType(sources), "starts": starts})),
        broadcast=FunctionType(StructType(sources), goes),
        work=FunctionType(StructType({"own": StructType(own), "goes": goes}), reads),
        aggregate=FunctionType(StructType({"starts": starts, "reads": reads}), _struct(_labelled(stage.reductions))),
    )


def _needed(roots: Iterable[Node]) -> tuple[tuple[str, Node], ...]:
    """The arguments and the reductions' results that the server makes these nodes of."""
    return _labelled(node for node in _below(roots, Reduce) if isinstance(node, Parameter | Reduce))


def _struct(nodes: Iterable[tuple[str, Node]]) -> StructType:
    return StructType([(label, node.type) for label, node in nodes])


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
            hint="aggregate them, or say federated_collect; called directly on lists it does run" + computation.line,
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
        inside = _below((node for _, node in reads), Broadcast)
        functions = [n for n in inside if isinstance(n, Apply)]
        new = [f for f in functions if level[id(f)] == depth - 1] or functions
        goes = _labelled((n for n in inside if isinstance(n, Broadcast)), keep=lambda n: n.source)
        name = _unique("+".join(dict.fromkeys(f.fn.name for f in new)) or "read", taken)
        stages.append(Stage(name, goes, reads, group, tuple(inside), tuple(new)))
    return tuple(stages)


def _below(roots: Iterable[Node], end: type[Node]) -> list[Node]:
    """The nodes that are computed at the place of the roots, inputs first: where `end` is, the other place's part begins."""
    seen: dict[int, Node] = {}

    def visit(node: Node) -> None:
        if id(node) in seen:
            return
        if not isinstance(node, end):
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
            out[id(node)] = (_unique(label_of(keep(node)), taken), node)
    return tuple(out.values())


def label_of(node: Node) -> str:
    match node:
        case Parameter():
            return node.name
        case Select():
            return str(node.key) if isinstance(node.key, str) else f"{label_of(node.source)}_{node.key}"
        case Apply():
            return node.fn.name
        case Constant():
            return "constant"
        case Broadcast():
            return label_of(node.source)
        case Record():
            return "values"
        case Reduce():
            return f"{node.kind}_{label_of(node.value)}"


def _unique(name: str, taken: set[str]) -> str:
    candidate, n = name, 1
    while candidate in taken:
        n += 1
        candidate = f"{name}_{n}"
    taken.add(candidate)
    return candidate
