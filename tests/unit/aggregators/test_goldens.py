"""TensorFlow Federated's printed cases: types, measurements and numbers of its aggregators, and of those that people write."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import hansa as hs
from hansa import aggregators as agg
from hansa.aggregators.leaves import local, on_leaves
from hansa.aggregators.means import nothing
from hansa.aggregators.quantised import Levels, SumOfLevels
from hansa.core.types import CLIENTS, SERVER, FederatedType, StructType, TensorType, Type, to_type
from hansa.errors import ConfigError, NotFiniteError, SpecError, TraceError
from hansa.templates import (
    AggregationProcess,
    EstimationProcess,
    MeasuredProcessOutput,
    UnweightedAggregationFactory,
)

F32, VECTOR = TensorType(np.float32), TensorType(np.float32, [2])
NUMBERS, VECTORS, ONES = [1.0, 2.0, 5.0], [[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0]


def once(process: AggregationProcess, *clients: Any) -> MeasuredProcessOutput:
    done: MeasuredProcessOutput = process.next(process.initialize(), *clients)
    return done


def told(process: AggregationProcess) -> str:
    """The type of its measurements."""
    result = process.next.type_signature.result
    return str(result["measurements"]) if isinstance(result, StructType) else ""


def test_sum() -> None:
    process = agg.SumFactory().create(F32)
    given = "<state=<>@SERVER,result=float32@SERVER,measurements=<>@SERVER>"
    assert str(process.next.type_signature) == f"(<state=<>@SERVER,value={{float32}}@CLIENTS> -> {given})"
    assert once(process, NUMBERS) == MeasuredProcessOutput((), 8.0, ())
    assert not process.is_stateful


def test_mean_weighted_unweighted_and_of_no_weight() -> None:
    process = agg.MeanFactory().create(F32, F32)
    assert str(process.state_type) == "<value_sum_process=<>,weight_sum_process=<>>@SERVER"
    assert told(process) == "<mean_value=<>,mean_weight=<>>@SERVER"
    assert once(process, NUMBERS, [1, 1, 2]).result == 3.25
    assert math.isnan(once(process, NUMBERS, [0, 0, 0]).result)
    assert once(agg.MeanFactory(no_nan_division=True).create(F32, F32), NUMBERS, [0, 0, 0]).result == 0.0
    plain = agg.UnweightedMeanFactory().create(F32)
    assert str(plain.state_type) == "<<>,<>>@SERVER"
    assert told(plain) == "<mean_value=<>,mean_count=<>>@SERVER"
    assert once(plain, NUMBERS).result == np.float32(2.6666667)
    ignoring = agg.as_weighted_aggregator(agg.UnweightedMeanFactory()).create(F32, F32)
    assert ignoring.is_weighted
    assert once(ignoring, NUMBERS, [5, 0, 0]).result == np.float32(2.6666667)


def test_means_are_of_floats() -> None:
    for factory in (agg.MeanFactory(), agg.as_weighted_aggregator(agg.UnweightedMeanFactory())):
        with pytest.raises(TraceError, match="All values in provided value_type must be of floating dtype"):
            factory.create(to_type({"w": np.float32, "n": np.int32}), F32)


def test_clipping_to_a_fixed_norm_and_to_a_learned_one() -> None:
    process = agg.clipping_factory(2.5, agg.UnweightedMeanFactory()).create(VECTOR)
    assert str(process.state_type) == "<clipping_norm=<>,inner_agg=<<>,<>>,clipped_count_agg=<>>@SERVER"
    measured = "<clipping=<mean_value=<>,mean_count=<>>,clipping_norm=float32,clipped_count=int32>@SERVER"
    assert told(process) == measured
    done = once(process, VECTORS)
    assert done.result.tolist() == [1.25, 2.0]
    assert (done.measurements["clipping_norm"], done.measurements["clipped_count"]) == (2.5, 1)
    adaptive = agg.clipping_factory(agg.quantile_estimation(1.0, 0.8, 0.2), agg.MeanFactory()).create(VECTOR, F32)
    state, norms = adaptive.initialize(), []
    for _ in range(4):
        state, _, measured = adaptive.next(state, VECTORS, ONES)
        norms.append(measured["clipping_norm"])
    assert norms == pytest.approx([1.0, 1.1735109, 1.3771279, 1.6160746], rel=1e-7)


def test_zeroing() -> None:
    done = once(agg.zeroing_factory(3.5, agg.UnweightedMeanFactory()).create(VECTOR), VECTORS)
    assert done.result.tolist() == [0.5, 1.0]
    assert list(done.measurements) == ["zeroing", "zeroing_norm", "zeroed_count"]
    assert done.measurements["zeroed_count"] == 1


def test_a_quantile_is_learned_geometrically() -> None:
    median = agg.quantile_estimation(1.0, 0.5, 0.2)
    state, seen = median.initialize(), []
    for _ in range(3):
        seen.append(median.report(state))
        state = median.next(state, [1, 2, 3, 4])
    assert seen == pytest.approx([1.0, 1.0512711, 1.1051708], rel=1e-7)
    assert median.next(state, []) == state  # nobody answered: it stays
    assert agg.affine(median, multiplier=2.0, increment=1.0).report(state) == pytest.approx(2 * median.report(state) + 1)


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("factory", [agg.HadamardTransformFactory, agg.DiscreteFourierTransformFactory])
def test_a_rotation_is_undone_with_new_signs_in_each_round(factory: Any, repeats: int) -> None:
    process = factory(agg.SumFactory(), repeats).create(TensorType(np.float32, [4]))
    assert str(process.state_type) == "<<>,int64[2]>@SERVER"
    state, result, _ = process.next(process.initialize(), [[1, 2, 3, 4]] * 2)
    assert result == pytest.approx([2, 4, 6, 8], rel=1e-6)
    assert state[1].tolist() == [0, 1]
    assert process.next(state, [[1, 2, 3, 4]] * 2).result == pytest.approx([2, 4, 6, 8], rel=1e-6)


def test_secure_sums_clip_count_and_wrap() -> None:
    assert once(agg.SecureSumFactory(10.0).create(F32), NUMBERS).result == pytest.approx(8.0, abs=1e-6)
    done = once(agg.SecureSumFactory(3.0).create(F32), NUMBERS)
    assert done.result == pytest.approx(6.0, abs=1e-6)
    assert done.measurements == {
        "secure_upper_clipped_count": 1,
        "secure_lower_clipped_count": 0,
        "secure_upper_threshold": 3.0,
        "secure_lower_threshold": -3.0,
    }
    integers = agg.SecureSumFactory(4, -1).create(to_type({"a": np.int32, "b": (np.int32, [2])}))
    assert once(integers, [{"a": 9, "b": [-5, 2]}, {"a": 1, "b": [0, 0]}]).result["b"].tolist() == [-1, 2]
    assert once(agg.SecureModularSumFactory(8).create(TensorType(np.int32)), [5, 6, 7]).result == 2
    symmetric = agg.SecureModularSumFactory(8, symmetric_range=True).create(TensorType(np.int32))
    unsigned = agg.SecureSumFactory(9).create(TensorType(np.uint64))
    assert once(unsigned, [2**64 - 1, 3]).result == 12  # clipped at the upper bound, not wrapped to the lower one
    with pytest.raises(NotFiniteError, match="goes into a secure sum is not a number"):
        once(agg.SecureSumFactory(3.0).create(F32), [1.0, math.nan])
    with pytest.raises(TraceError, match="integers or of floats"):
        agg.SecureSumFactory(1.0).create(to_type({"a": np.int32, "b": np.float32}))
    with pytest.raises(TraceError, match="a Tree may have others"):
        agg.SecureModularSumFactory(8).create(to_type(hs.Tree))
    assert [once(symmetric, each).result for each in ([5, -6, 7], [-7, -7], [-1])] == [6, 1, -1]


def test_the_recommended_stacks() -> None:
    for stack in (agg.robust_aggregator(), agg.compression_aggregator(), agg.secure_aggregator()):
        done = once(stack.create(VECTOR, F32), VECTORS, ONES)
        assert done.result == pytest.approx([0.5236068, 0.8472136], abs=1e-6)
        assert list(done.measurements) == ["zeroing", "zeroing_norm", "zeroed_count"]
        assert done.measurements["zeroing_norm"] == 21.0
    assert str(agg.robust_aggregator(zeroing=False).create(VECTOR, F32).state_type) == (
        "<clipping_norm=<current_estimate=float32>,inner_agg=<value_sum_process=<>,weight_sum_process=<>>,clipped_count_agg=<>>@SERVER"
    )
    for unweighted in (agg.robust_aggregator(weighted=False), agg.secure_aggregator(weighted=False)):
        assert once(unweighted.create(VECTOR), VECTORS).result == pytest.approx([0.5236068, 0.8472136], abs=1e-6)


def test_concat_goes_through_one_vector_and_comes_back() -> None:
    kind = to_type([(np.float32, [2]), (np.float32, [3])])
    process = agg.concat_factory(agg.clipping_factory(1e9, agg.MeanFactory())).create(kind, F32)
    result = once(process, [[[1, 2], [3, 4, 5]], [[1, 1], [3, 0, -5]]], ONES).result
    assert [a.tolist() for a in result] == [[1.0, 1.5], [3.0, 2.0, 0.0]]
    with pytest.raises(TraceError, match="one dtype"):
        agg.concat_factory(agg.SumFactory()).create(to_type([np.float32, np.int32]))
    with pytest.raises(TraceError, match="not for a Tree"):
        agg.concat_factory(agg.SumFactory()).create(to_type(hs.Tree))


def test_measurements_are_added_at_both_ends() -> None:
    def at_clients(value: Any) -> dict[str, Any]:
        return {"m": hs.federated_max(value)}

    def at_server(result: Any) -> dict[str, Any]:
        return {"total": result}

    process = agg.add_measurements(agg.SumFactory(), client_measurement_fn=at_clients, server_measurement_fn=at_server).create(F32)
    assert once(process, NUMBERS).measurements == {"m": 5.0, "total": 8.0}
    with pytest.raises(TraceError, match="a function that measures"):
        agg.add_measurements(agg.SumFactory())


def test_quantised_and_compressed_sums_are_right_on_average_and_bits_are_counted() -> None:
    half_steps = agg.DeterministicDiscretizationFactory(0.5, agg.SumFactory()).create(VECTOR)
    done = once(half_steps, [[0.6, -0.8], [0.1, 0.3]])
    assert done.result.tolist() == [0.5, -0.5]
    assert str(half_steps.state_type) == "<step_size=float32,inner_agg_process=<>>@SERVER"
    wide = agg.DeterministicDiscretizationFactory(0.5, agg.SumFactory()).create(TensorType(np.float64))
    assert once(wide, [61_728_394.5]).result == 61_728_394.5  # a float32 would make 61,728,396 of it
    line = np.linspace(-1, 1, 1000, dtype=np.float32)
    kind = TensorType(np.float32, [1000])
    random_steps = once(agg.StochasticDiscretizationFactory(0.5, agg.SumFactory()).create(kind), [line] * 400).result / 400
    assert np.abs(random_steps - line).max() < 5 * 0.25 / 20  # five standard errors; a rounding to halves is off by 0.25
    assert np.abs(random_steps - line).mean() < 0.012
    quantised = agg.QuantizedSumFactory(4, threshold=999).create(kind)
    done = once(quantised, [line] * 400)
    assert done.measurements["aggregated_bits"] == 400 * 8 * (1000 + 4 + 4)
    assert np.abs(done.result / 400 - line).max() < 5 * 0.5 * (2 / 15) / 20
    assert once(agg.QuantizedSumFactory(4, threshold=1000).create(kind), [line] * 2).result == pytest.approx(2 * line, rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [{"least": None}, {"greatest": np.zeros(2)}, {"least": np.asarray("0")}, {"levels": np.zeros(3)}, {"greatest": {"a": 1}}],
)
def test_levels_that_no_site_of_ours_sends_are_refused_and_leave_the_sum_unchanged(change: dict[str, Any]) -> None:
    code = Levels(8, 2)
    sent = code.encoded({"w": np.array([0.0, 0.5, 1.0])}, np.random.default_rng(0))
    adding = SumOfLevels(code)
    acc = adding.add(adding.zero(sent), sent, 1.0)
    with pytest.raises(SpecError, match="did not travel as levels; at path w"):
        adding.add(acc, {"w": sent["w"] | change}, 1.0)
    assert adding.finish(acc)["w"][[0, 2]].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("made", "path"),
    [
        (lambda: agg.clipping_factory(0.0, agg.SumFactory()), "clipping_norm"),
        (lambda: agg.clipping_factory(math.nan, agg.SumFactory()), "clipping_norm"),
        (lambda: agg.zeroing_factory(1.0, agg.SumFactory(), norm_order=3), "norm_order"),
        (lambda: agg.quantile_estimation(1.0, 1.5, 0.1), "target_quantile"),
        (lambda: agg.quantile_estimation(0.0, 0.5, 0.1), "initial_estimate"),
        (lambda: agg.SecureSumFactory(1.0, 2.0), "upper_bound_threshold"),
        (lambda: agg.SecureModularSumFactory(1), "modulus"),
        (lambda: agg.HadamardTransformFactory(agg.SumFactory(), 0), "num_repeats"),
        (lambda: agg.QuantizedSumFactory(17), "quantization_bits"),
        (lambda: agg.StochasticDiscretizationFactory(-1.0, agg.SumFactory()), "step_size"),
    ],
)
def test_a_setting_out_of_its_range_is_named(made: Any, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made()
    assert caught.value.path == path


class Scaled(UnweightedAggregationFactory):
    """The tutorial on custom aggregators: values doubled, summed (by an inner process) and halved; the state adds up all rounds."""

    def __init__(self, inner: UnweightedAggregationFactory | None = None, *, stateful: bool = True) -> None:
        self.inner, self.stateful = inner, stateful

    def create(self, value_type: Type) -> AggregationProcess:
        inner = None if self.inner is None else self.inner.create(value_type)
        takes = {"v": value_type}
        twice = local("twice", lambda v: on_leaves(lambda a: a * a.dtype.type(2), v, kind=value_type), takes, value_type)
        half = local("half", lambda v: on_leaves(lambda a: a / a.dtype.type(2), v, kind=value_type), takes, value_type)
        add = local("add", lambda a, b: np.float32(a + b), {"a": F32, "b": F32}, F32)

        @hs.federated_computation
        def initialize() -> Any:
            own = hs.federated_value(np.float32(0), SERVER) if self.stateful else nothing()
            return own if inner is None else hs.federated_zip(OrderedDict(scaled=own, inner=inner.initialize()))

        state_type: Type = initialize.type_signature.result

        @hs.federated_computation(state_type, FederatedType(value_type, CLIENTS))
        def next_fn(state: Any, value: Any) -> MeasuredProcessOutput:
            scaled = hs.federated_map(twice, value)
            if inner is None:
                total = hs.federated_map(half, hs.federated_sum(scaled))
                if not self.stateful:
                    return MeasuredProcessOutput(state, total, nothing())
                if isinstance(value_type, StructType):
                    return MeasuredProcessOutput(state, total, total)
                after = hs.federated_map(add, (state, total))
                return MeasuredProcessOutput(after, total, after)
            done: Any = inner.next(state.inner, scaled)
            total = hs.federated_map(half, done.result)
            after = hs.federated_map(add, (state.scaled, total))
            told = hs.federated_zip(OrderedDict(scaled_value=after, example_task=done.measurements))
            return MeasuredProcessOutput(hs.federated_zip(OrderedDict(scaled=after, inner=done.state)), total, told)

        return AggregationProcess(initialize, next_fn)


def test_people_write_aggregators_of_their_own_and_put_them_around_others() -> None:
    stateless = Scaled(stateful=False).create(F32)
    assert str(stateless.initialize.type_signature) == "( -> <>@SERVER)"
    given = "<state=<>@SERVER,result=float32@SERVER,measurements=<>@SERVER>"
    assert str(stateless.next.type_signature) == f"(<state=<>@SERVER,value={{float32}}@CLIENTS> -> {given})"
    assert once(stateless, NUMBERS).result == 8.0

    counting = Scaled().create(F32)
    assert str(counting.initialize.type_signature) == "( -> float32@SERVER)"
    given = "<state=float32@SERVER,result=float32@SERVER,measurements=float32@SERVER>"
    assert str(counting.next.type_signature) == f"(<state=float32@SERVER,value={{float32}}@CLIENTS> -> {given})"
    state, measured = counting.initialize(), []
    for _ in range(3):
        state, result, each = counting.next(state, NUMBERS)
        assert result == 8.0
        measured.append(each)
    assert measured == [8.0, 16.0, 24.0]

    structs = Scaled().create(to_type([(np.float32, (2,)), (np.float32, (3,))]))
    pair = "<float32[2],float32[3]>@SERVER"
    takes = "<state=float32@SERVER,value={<float32[2],float32[3]>}@CLIENTS>"
    gives = f"<state=float32@SERVER,result={pair},measurements={pair}>"
    assert str(structs.next.type_signature) == f"({takes} -> {gives})"
    result = once(structs, [[[1, 2], [3, 4, 5]], [[1, 1], [3, 0, -5]]]).result
    assert [a.tolist() for a in result] == [[2.0, 3.0], [6.0, 4.0, 0.0]]

    for factory, expected in (
        (Scaled(agg.SumFactory()), ({"scaled_value": 8.0, "example_task": ()}, {"scaled_value": 16.0, "example_task": ()})),
        (
            Scaled(Scaled(agg.SumFactory())),
            (
                {"scaled_value": 8.0, "example_task": {"scaled_value": 16.0, "example_task": ()}},
                {"scaled_value": 16.0, "example_task": {"scaled_value": 32.0, "example_task": ()}},
            ),
        ),
    ):
        process = factory.create(F32)
        first = once(process, NUMBERS)
        assert (first.measurements, process.next(first.state, NUMBERS).measurements) == expected


def test_an_estimate_of_another_kind_bounds_as_well() -> None:
    """A bound may be any estimate: here half the largest norm so far."""

    @hs.federated_computation
    def first() -> Any:
        return hs.federated_value(np.float32(1), SERVER)

    @hs.federated_computation(FederatedType(np.float32, SERVER), FederatedType(np.float32, CLIENTS))
    def step(state: Any, norm: Any) -> Any:
        del state
        return hs.federated_max(norm)

    @hs.federated_computation(FederatedType(np.float32, SERVER))
    def report(state: Any) -> Any:
        return hs.federated_map(local("half", lambda x: np.float32(x / 2), {"x": F32}, F32), state)

    process = agg.clipping_factory(EstimationProcess(first, step, report), agg.SumFactory()).create(VECTOR)
    state, _, measured = process.next(process.initialize(), VECTORS)
    assert measured["clipping_norm"] == 0.5
    assert process.next(state, VECTORS).measurements["clipping_norm"] == 2.5
