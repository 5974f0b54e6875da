"""Aggregators of any composition: the interpreter's bits in a simulated federation, and what each layer promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa import Job, simulate
from hansa import aggregators as agg
from hansa.core import trees
from hansa.core.protocols import Federation
from hansa.core.run import run
from hansa.core.types import Type, to_type
from hansa.core.values import pack
from hansa.templates import AggregationProcess, UnweightedAggregationFactory

KIND: Type = to_type({"w": (np.float32, [5]), "b": np.float32})
ENTRY = st.floats(-100, 100, width=32)
VALUE = st.fixed_dictionaries({"w": st.lists(ENTRY, min_size=5, max_size=5), "b": ENTRY})
SITES = st.lists(VALUE, min_size=1, max_size=4)
Layer = Callable[[Any], Any]
LAYERS: dict[str, Layer] = {
    "clip": lambda inner: agg.clipping_factory(5.0, inner),
    "learned clip": lambda inner: agg.clipping_factory(agg.quantile_estimation(1.0, 0.5, 0.2), inner),
    "zero": lambda inner: agg.zeroing_factory(50.0, inner),
    "rotate": agg.HadamardTransformFactory,
    "turn": agg.DiscreteFourierTransformFactory,
    "whole steps": lambda inner: agg.DeterministicDiscretizationFactory(0.25, inner),
    "one vector": agg.concat_factory,
}
ENDS: list[UnweightedAggregationFactory] = [agg.SumFactory(), agg.UnweightedMeanFactory(), agg.QuantizedSumFactory(8, 100)]


def stack(layers: Sequence[str], end: int) -> AggregationProcess:
    """The layers from the outermost; below whole steps there are integers, which are summed."""
    if "whole steps" in layers:
        layers, end = [*[each for each in layers if each != "whole steps"], "whole steps"], 0
    made: Any = ENDS[end]
    for layer in reversed(layers):
        made = LAYERS[layer](made)
    process: AggregationProcess = made.create(KIND)
    return process


@dataclass(frozen=True)
class Rounds:
    """Two rounds of a process, each with the state of the one before."""

    process: AggregationProcess

    @property
    def computations(self) -> tuple[Any, ...]:
        return self.process.initialize, self.process.next

    def __call__(self, federation: Federation) -> Any:
        state = run(self.process.initialize, federation).result  # type: ignore[arg-type]  # a Computation
        outputs = []
        for number in (1, 2):
            outputs.append(run(self.process.next, federation, state, round=number).result)  # type: ignore[arg-type]  # the same
            state = outputs[-1].state
        return outputs


@dataclass(frozen=True)
class Column:
    values: Sequence[Any]

    @property
    def sites(self) -> Sequence[str]:
        return [f"site-{i}" for i in range(len(self.values))]

    def load(self, slot: int) -> Any:
        return {name: np.asarray(value, np.float32) for name, value in self.values[slot].items()}


@given(SITES, st.lists(st.sampled_from(sorted(LAYERS)), max_size=3, unique=True), st.integers(0, 2))
@settings(deadline=None, max_examples=25)  # each example is traced anew
def test_a_stack_gives_the_interpreters_bits_in_a_federation(sites: list[Any], layers: list[str], end: int) -> None:
    process = stack(layers, end)
    state, interpreted = process.initialize(), []
    for _ in range(2):
        interpreted.append(process.next(state, sites))
        state = interpreted[-1].state
    simulated = simulate(Job("stack", Rounds(process), data="value"), {"value": Column(sites)}, seed=0).value
    assert trees.equal(pack(interpreted), pack(simulated)), (layers, interpreted, simulated)


@given(SITES, st.sampled_from([agg.HadamardTransformFactory, agg.DiscreteFourierTransformFactory]), st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_a_rotation_changes_a_sum_by_rounding_alone(sites: list[Any], rotation: Any, repeats: int) -> None:
    plain, turned = agg.SumFactory().create(KIND), rotation(agg.SumFactory(), repeats).create(KIND)
    expected, found = (process.next(process.initialize(), sites).result for process in (plain, turned))
    for name in ("w", "b"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-3, rtol=1e-5)


@given(SITES, st.floats(0.01, 50))
@settings(deadline=None, max_examples=30)
def test_a_mean_of_clipped_values_is_no_longer_than_the_norm_and_keeps_what_is_short(sites: list[Any], norm: float) -> None:
    process = agg.clipping_factory(norm, agg.UnweightedMeanFactory()).create(KIND)
    _, result, measured = process.next(process.initialize(), sites)
    assert trees.norm(pack(result)) <= norm * (1 + 1e-5)
    lengths = [np.linalg.norm([*site["w"], site["b"]]) for site in sites]
    assert sum(length > norm * (1 + 1e-6) for length in lengths) <= measured["clipped_count"]
    assert measured["clipped_count"] <= sum(length > norm * (1 - 1e-6) for length in lengths)
