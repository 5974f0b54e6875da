"""The laws of DESIGN section 5, for any shapes, dtypes, weights and ways of cutting the work up."""

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.aggregation import accumulate
from hansa.aggregation.exact import ExactMean, ExactSum, FixedPoint
from hansa.aggregation.mean import Mean
from hansa.aggregation.sums import Sum
from hansa.core import trees
from hansa.core.trees import Tree, cast_like, equal, leaves

DTYPES = ["float16", ml_dtypes.bfloat16, "float32", "float64", "int8", "int64", "uint16", "bool", "complex64", "complex128"]
SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (7,), (3, 5), (2, 3, 4)]
WEIGHTS = st.one_of(st.just(1.0), st.integers(1, 1000).map(float), st.floats(1e-3, 1e3))


def array(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    kind = np.dtype(dtype).kind
    values = np.asarray(rng.normal(0, 3, shape) + (1j * rng.normal(0, 3, shape) if kind == "c" else 0))
    values = np.abs(values) if kind == "u" else values
    out = (values > 0) if kind == "b" else np.rint(values).astype(dtype) if kind in "iu" else values.astype(dtype)
    return out.T.copy().T if rng.random() < 0.3 else out  # some leaves are not contiguous


@st.composite
def cohorts(draw: st.DrawFn, dtypes: Any = DTYPES) -> tuple[list[Tree], list[float]]:
    """Updates of one random Spec, and their weights."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spec = draw(st.lists(st.tuples(st.sampled_from(SHAPES), st.sampled_from(dtypes)), min_size=1, max_size=4))
    count = draw(st.integers(1, 6))
    updates: list[Tree] = [{"part": {str(i): array(rng, *leaf) for i, leaf in enumerate(spec)}} for _ in range(count)]
    return updates, draw(st.lists(WEIGHTS, min_size=count, max_size=count))


def stream(aggregator: Any, updates: list[Tree], weights: list[float]) -> Tree:
    acc = aggregator.zero(updates[0])
    for update, weight in zip(updates, weights, strict=True):
        acc = aggregator.add(acc, update, weight)
    result: Tree = aggregator.finish(acc)
    return result


def in_blocks(aggregator: Any, updates: list[Tree], weights: list[float], size: int) -> Tree:
    """The same, with `size` updates stacked at a time."""
    acc = aggregator.zero(updates[0])
    for start in range(0, len(updates), size):
        some = updates[start : start + size]
        acc = aggregator.add_many(acc, trees.map(lambda *each: np.stack(each), *some), weights[start : start + size])
    result: Tree = aggregator.finish(acc)
    return result


@settings(max_examples=150, deadline=None)
@given(cohorts(), st.integers(2, 9), st.integers(2, 40), st.sampled_from([1, 2, 3]))
def test_all_at_hand_and_one_after_another_give_the_same_bits_however_the_work_is_cut(
    cohort: tuple[list[Tree], list[float]], block: int, span: int, threads: int
) -> None:
    updates, weights = cohort
    with pytest.MonkeyPatch.context() as patch:
        for aggregator in (Mean(), Sum()):
            whole = stream(aggregator, updates, weights)
            assert equal(in_blocks(aggregator, updates, weights, block), whole)
            patch.setattr(accumulate, "BLOCK", block)
            patch.setattr(accumulate, "FOLD_BLOCK", block + 1)
            patch.setattr(accumulate, "SPAN", span)
            assert equal(stream(aggregator, updates, weights), whole)
            assert equal(in_blocks(aggregator, updates, weights, block), whole)
            assert equal(aggregator.fold(updates, weights, threads=threads), whole)
            patch.undo()


@settings(max_examples=100, deadline=None)
@given(cohorts())
def test_the_fold_is_the_plain_sequential_float64_loop(cohort: tuple[list[Tree], list[float]]) -> None:
    updates, weights = cohort
    columns = [dict(leaves(update)) for update in updates]
    for path, got in leaves(Mean().fold(updates, weights)):
        wide = np.complex128 if got.dtype.kind == "c" else np.float64
        total = columns[0][path].astype(wide) * weights[0]
        for column, weight in zip(columns[1:], weights[1:], strict=True):
            total = total + column[path].astype(wide) * weight
        sum_of_weights = 0.0
        for weight in weights:
            sum_of_weights += weight
        want = cast_like(np.asarray(total / sum_of_weights), got.dtype)
        if got.dtype.kind == "c":  # numpy divides complex by complex; ours divides the parts, which is the better rounding
            np.testing.assert_allclose(got, want, rtol=1e-6)
        else:
            assert got.tobytes() == want.tobytes()


@settings(max_examples=60, deadline=None)
@given(cohorts(["float32", "float64", "complex128"]), st.integers(0, 6))
def test_merging_equals_feeding_to_rounding(cohort: tuple[list[Tree], list[float]], cut: int) -> None:
    updates, weights = cohort
    for aggregator in (Mean(), Sum()):
        parts = []
        for part in (slice(None, cut), slice(cut, None)):
            acc = aggregator.zero(updates[0])
            for update, weight in zip(updates[part], weights[part], strict=True):
                acc = aggregator.add(acc, update, weight)
            parts.append(acc)
        merged = dict(leaves(aggregator.finish(aggregator.merge(*parts))))
        for path, want in leaves(aggregator.fold(updates, weights)):
            np.testing.assert_allclose(merged[path], want, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(cohorts(["float16", "float32", "float64", "int64", "bool"]), st.integers(-10, 10))
def test_scaling_all_weights_by_a_power_of_two_changes_no_bit(cohort: tuple[list[Tree], list[float]], power: int) -> None:
    updates, weights = cohort
    assert equal(Mean().fold(updates, [w * 2.0**power for w in weights]), Mean().fold(updates, weights))


@settings(max_examples=60, deadline=None)
@given(cohorts(["float16", ml_dtypes.bfloat16, "float32", "int8", "int64", "bool", "complex64"]))
def test_the_mean_of_equal_updates_is_the_update(cohort: tuple[list[Tree], list[float]]) -> None:
    updates, weights = cohort
    assert equal(Mean().fold([updates[0]] * len(weights), weights), updates[0])


POINT = FixedPoint(bound=32.0, weight=1024.0, count=64)


@settings(max_examples=60, deadline=None)
@given(cohorts(["float32", "float64", "int8", "bool", "complex64"]), st.randoms(use_true_random=False))
def test_fixed_point_gives_the_same_bits_in_every_order_and_grouping(cohort: tuple[list[Tree], list[float]], random: Any) -> None:
    updates, weights = cohort
    for aggregator in (ExactMean(POINT), ExactSum(POINT)):
        want = stream(aggregator, updates, weights)
        accs = [aggregator.add(aggregator.zero(updates[0]), u, w) for u, w in zip(updates, weights, strict=True)]
        accs.append(aggregator.zero(updates[0]))
        while len(accs) > 1:
            random.shuffle(accs)
            accs.append(aggregator.merge(accs.pop(), accs.pop()))
        assert equal(aggregator.finish(accs[0]), want)


@settings(max_examples=60, deadline=None)
@given(cohorts(["float64"]), st.integers(24, 62))
def test_fixed_point_is_the_float_result_within_the_step(cohort: tuple[list[Tree], list[float]], bits: int) -> None:
    updates, weights = cohort
    point = FixedPoint(bound=32.0, weight=1024.0, count=8, bits=bits)
    for aggregator, plain, divisor in ((ExactMean(point), Mean(), math.fsum(weights)), (ExactSum(point), Sum(), 1.0)):
        want = dict(leaves(plain.fold(updates, weights)))
        for path, got in leaves(stream(aggregator, updates, weights)):
            np.testing.assert_allclose(got, want[path], rtol=1e-12, atol=point.step * len(updates) / 2 / divisor + 1e-12)
