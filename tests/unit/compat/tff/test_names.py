"""The door of TensorFlow Federated's names, as far as it goes without TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import hansa as hs
import hansa.compat.tff as tff

FLOATS = tff.FederatedType(np.float32, tff.CLIENTS)


def test_the_door_imports_no_framework() -> None:
    asked = "import sys, hansa.compat.tff; print([m for m in ('tensorflow', 'keras', 'torch', 'jax') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_types_and_operators_are_those_of_hansa() -> None:
    same = [name for name in dir(tff) if name in hs.__all__]
    assert {"federated_computation", "federated_mean", "sequence_reduce", "to_type", "CLIENTS"} <= set(same)
    assert all(getattr(tff, name) is getattr(hs, name) for name in same)


def test_the_types_of_the_first_federated_tutorial_print_as_there() -> None:
    t = FLOATS
    pair = tff.StructType([("a", np.float32), ("b", np.float32)])
    assert [str(t.member), str(t.placement), str(t), t.all_equal] == ["float32", "CLIENTS", "{float32}@CLIENTS", False]
    assert str(tff.FederatedType(np.float32, tff.CLIENTS, all_equal=True)) == "float32@CLIENTS"
    assert str(pair) == "<a=float32,b=float32>"
    assert str(tff.FederatedType(pair, tff.CLIENTS, all_equal=True)) == "<a=float32,b=float32>@CLIENTS"
    assert str(tff.SequenceType(np.float32)) == "float32*"
    assert [str(tff.types.at_clients(pair)), str(tff.type_at_server(pair))] == [f"{{{pair}}}@CLIENTS", f"{pair}@SERVER"]
    assert str(tff.types.StructWithPythonType([("a", np.int32)], OrderedDict)) == "<a=int32>"


def test_a_traced_body_sees_values_and_not_data() -> None:
    seen = []

    @tff.federated_computation(FLOATS)
    def average(readings: Any) -> Any:
        seen.append(type(readings).__name__)
        return tff.federated_mean(readings)

    assert float(average([68.5, 70.3, 69.8])) == pytest.approx(69.53334, rel=1e-6)
    assert seen == ["Value"]


def test_a_context_need_not_be_set_and_a_number_of_clients_is_said_in_the_call() -> None:
    tff.backends.native.set_sync_local_cpp_execution_context()
    with pytest.raises(hs.HansaError, match=r"no default number of clients.*over\(n\)"):
        tff.backends.native.set_sync_local_cpp_execution_context(default_num_clients=10)


def test_a_sample_is_that_of_its_round() -> None:
    sample = tff.simulation.build_uniform_sampling_fn(["a", "b", "c"], random_seed=1)
    assert sorted(sample(4, 3)) == ["a", "b", "c"]
    assert sample(4, 2) == tff.simulation.build_uniform_sampling_fn(["a", "b", "c"], random_seed=1)(4, 2)
    assert len({tuple(sample(k, 2)) for k in range(20)}) > 1
    with pytest.raises(hs.HansaError, match="Failed to sample 4 clients from population of size 3"):
        sample(0, 4)
    drawn = tff.simulation.build_uniform_sampling_fn(["a", "b", "c"], replace=True, random_seed=1)(0, 9)
    assert len(drawn) == 9


def test_a_composed_aggregator_and_one_of_ones_own_run_under_their_names() -> None:
    process = tff.aggregators.clipping_factory(1.0, tff.aggregators.SumFactory()).create(tff.to_type(np.float32))
    assert isinstance(process, tff.templates.AggregationProcess)
    output = process.next(process.initialize(), [0.5, 3.0])
    assert (float(output.result), int(output.measurements["clipped_count"])) == (1.5, 1)


def test_a_function_of_several_parameters_takes_the_structs_of_a_sequence() -> None:
    pair = tff.to_type(OrderedDict(x=np.int32, y=np.int32))

    @hs.local_computation(np.int32, np.int32)
    def minus(x: Any, y: Any) -> np.int32:
        return np.int32(x - y)

    @tff.federated_computation(tff.SequenceType(pair))
    def differences(pairs: Any) -> Any:
        return tff.sequence_sum(tff.sequence_map(minus, pairs))

    assert int(differences([{"x": 5, "y": 1}, {"y": 2, "x": 4}])) == 6
    with pytest.raises(hs.HansaError, match="the function of sequence_map is no such function"):
        tff.federated_computation(
            lambda pairs: tff.sequence_map(minus, pairs), tff.SequenceType(OrderedDict(y=np.int32, x=np.int32))
        )
