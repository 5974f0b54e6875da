"""Two executors, one meaning: a generated computation gives the same bits when it is interpreted and when it is simulated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hansa import Job, simulate
from hansa.core import trees
from hansa.core.computation import Computation, federated_computation
from hansa.core.intrinsics import (
    federated_aggregate,
    federated_broadcast,
    federated_collect,
    federated_eval,
    federated_map,
    federated_max,
    federated_mean,
    federated_min,
    federated_reduce,
    federated_secure_modular_sum,
    federated_secure_sum,
    federated_secure_sum_bitwidth,
    federated_sum,
    federated_value,
    federated_zip,
)
from hansa.core.protocols import Federation
from hansa.core.run import run
from hansa.core.types import CLIENTS, SERVER, FederatedType, SequenceType
from hansa.core.values import pack
from hansa.local import local_computation
from hansa.sequences import federated_select, sequence_map, sequence_reduce, sequence_sum

f32, i32 = np.float32, np.int32


class Split(NamedTuple):
    half: np.float32
    whole: np.int32


@local_computation(f32)
def double(x: Any) -> np.float32:
    return f32(x * 2)


@local_computation(f32, i32)
def scaled(x: Any, n: Any) -> np.float32:
    return f32(x * n)


@local_computation(f32)
def split(x: Any) -> Split:
    return Split(f32(x / 2), i32(abs(x) % 40))


@local_computation(i32)
def bounded(n: Any) -> np.int32:
    return i32(abs(int(n)) % 50)


@local_computation(f32, i32)
def added(x: Any, n: Any) -> np.float32:
    return f32(x + n)


@local_computation(f32, f32)
def joined(x: Any, y: Any) -> np.float32:
    return f32(x + y)


@local_computation((f32, [3]), i32)
def entry(row: Any, key: Any) -> np.float32:
    return f32(row[key])


@local_computation
def seven() -> np.float32:
    return f32(7)


# what a step takes (kind at a place), what it makes
STEPS: dict[str, tuple[tuple[str, ...], str, Any]] = {
    "map": (("x@C",), "x@C", lambda x: federated_map(double, x)),
    "map two": (("x@C", "n@C"), "x@C", lambda x, n: federated_map(scaled, (x, n))),
    "map zipped": (("x@C", "n@C"), "x@C", lambda x, n: federated_map(scaled, federated_zip([x, n]))),
    "map at server": (("x@S",), "x@S", lambda x: federated_map(double, x)),
    "map by name": (("x@S", "n@S"), "x@S", lambda x, n: federated_map(scaled, {"n": n, "x": x})),
    "field": (("x@C",), "x@C", lambda x: federated_map(split, x).half),
    "element": (("x@C",), "n@C", lambda x: federated_map(split, x)[1]),
    "mean of a struct": (("x@C",), "x@S", lambda x: federated_mean((x, federated_map(double, x)))[1]),
    "broadcast": (("x@S",), "x@C", federated_broadcast),
    "broadcast whole": (("n@S",), "n@C", federated_broadcast),
    "mean": (("x@C",), "x@S", federated_mean),
    "weighted": (("x@C", "n@C"), "x@S", lambda x, n: federated_mean(x, weight=federated_map(bounded, n))),
    "sum": (("x@C",), "x@S", federated_sum),
    "sum whole": (("n@C",), "n@S", federated_sum),
    "sum struct": (("x@C",), "n@S", lambda x: federated_sum(federated_map(split, x)).whole),
    "min": (("x@C",), "x@S", federated_min),
    "max": (("n@C",), "n@S", federated_max),
    "eval": ((), "x@S", lambda: federated_eval(seven, SERVER)),
    "value": ((), "x@C", lambda: federated_value(1.5, CLIENTS)),
    "aggregate": (("n@C",), "x@S", lambda n: federated_aggregate(n, 0.5, added, joined, double)),
    "reduce": (("n@C", "x@S"), "x@S", lambda n, x: federated_reduce(n, x, added)),
    "secure sum": (("n@C",), "n@S", lambda n: federated_secure_sum(federated_map(bounded, n), 50)),
    "secure bits": (("n@C",), "n@S", lambda n: federated_secure_sum_bitwidth(federated_map(bounded, n), 6)),
    "secure modular": (("n@C",), "n@S", lambda n: federated_secure_modular_sum(n, 9)),
    "collect": (("x@C",), "x@S", lambda x: sequence_sum(federated_collect(x))),
    "sequence sum": (("d@C",), "n@C", sequence_sum),
    "sequence reduce": (("d@C",), "x@C", lambda d: sequence_reduce(d, 0.0, added)),
    "sequence map": (("d@C",), "n@C", lambda d: sequence_sum(sequence_map(bounded, d))),
    "select": (("k@C", "v@S"), "x@C", lambda k, v: sequence_sum(federated_select(k, federated_value(3, SERVER), v, entry))),
}
KINDS = {
    "x": FederatedType(f32, CLIENTS),
    "n": FederatedType(i32, CLIENTS),
    "d": FederatedType(SequenceType(i32), CLIENTS),
    "k": FederatedType((i32, [2]), CLIENTS),
    "s": FederatedType(f32, SERVER),
    "t": FederatedType(i32, SERVER),
    "v": FederatedType((f32, [3]), SERVER),
}
GIVEN = {"x": "x@C", "n": "n@C", "d": "d@C", "k": "k@C", "s": "x@S", "t": "n@S", "v": "v@S"}
Program = list[tuple[str, list[int]]]


def trace(program: Program) -> Computation:
    def body(x: Any, n: Any, d: Any, k: Any, s: Any, t: Any, v: Any) -> Any:
        made: dict[str, list[Any]] = {}
        for name, value in {"x": x, "n": n, "d": d, "k": k, "s": s, "t": t, "v": v}.items():
            made.setdefault(GIVEN[name], []).append(value)
        told = [s]
        for name, picks in program:
            takes, gives, step = STEPS[name]
            value = step(*(made[kind][pick % len(made[kind])] for kind, pick in zip(takes, picks, strict=False)))
            made[gives].append(value)
            told += [value] if gives.endswith("S") else []
        return told

    computation = federated_computation(body, *KINDS.values())
    assert isinstance(computation, Computation)
    return computation


@dataclass(frozen=True)
class Once:
    """A workflow of one round; its result is the computation's."""

    computation: Computation
    state: Sequence[Any]

    @property
    def computations(self) -> Sequence[Computation]:
        return (self.computation,)

    def __call__(self, federation: Federation) -> Any:
        return run(self.computation, federation, *self.state).result


@dataclass(frozen=True)
class Column:
    values: Sequence[Any]

    @property
    def sites(self) -> Sequence[str]:
        return [f"site-{i}" for i in range(len(self.values))]

    def load(self, slot: int) -> Any:
        return self.values[slot]


floats = st.floats(-1e3, 1e3, width=32).map(f32)
whole = st.integers(-1000, 1000).map(i32)
clients = st.fixed_dictionaries(
    {
        "x": floats,
        "n": whole,
        "d": st.lists(whole, max_size=4),
        "k": st.lists(st.integers(0, 2), min_size=2, max_size=2).map(lambda keys: np.array(keys, i32)),
    }
)
programs = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.lists(st.integers(0, 9), min_size=2, max_size=2)), min_size=1, max_size=8
)
servers = st.tuples(floats, whole, st.lists(floats, min_size=3, max_size=3).map(lambda row: np.array(row, f32)))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs, st.lists(clients, min_size=1, max_size=4), servers)
def test_a_generated_computation_means_the_same_to_the_interpreter_and_to_the_simulation(
    program: Program, sites: list[dict[str, Any]], server: tuple[Any, Any, Any]
) -> None:
    computation = trace(program)
    columns = {name: [site[name] for site in sites] for name in ("x", "n", "d", "k")}
    interpreted = computation(*columns.values(), *server)
    job = Job("generated", Once(computation, server), data="x")
    simulated = simulate(job, {name: Column(values) for name, values in columns.items()}, seed=0).value
    assert trees.equal(pack(interpreted), pack(simulated)), (program, interpreted, simulated)


def test_every_step_of_the_generator_runs() -> None:
    computation = trace([(name, [0, 0]) for name in STEPS])
    told = computation([1.0, 2.0], [3, 4], [[1, 2], []], [[0, 2], [1, 1]], 0.5, 2, [1.0, 2.0, 3.0])
    assert len(told) == 1 + sum(gives.endswith("S") for _, gives, _ in STEPS.values())
