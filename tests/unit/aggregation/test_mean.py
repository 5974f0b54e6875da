from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hansa.aggregation.mean import Mean
from hansa.core.task import Expect, Shareable
from hansa.core.trees import Spec, Tree
from hansa.errors import NotFiniteError, RunError, SpecError, WeightError


def mean(updates: list[Any], weights: list[float]) -> Any:
    aggregator = Mean()
    acc = aggregator.zero({"w": updates[0]})
    for update, weight in zip(updates, weights, strict=True):
        acc = aggregator.add(acc, {"w": update}, weight)
    streamed, folded = aggregator.finish(acc)["w"], aggregator.fold([{"w": u} for u in updates], weights)["w"]
    assert streamed.dtype == folded.dtype == updates[0].dtype
    assert streamed.tobytes() == folded.tobytes()
    return streamed


def test_three_sites_and_two_parameters_by_hand() -> None:
    sites = [np.array([1.0, -2.0]), np.array([4.0, 0.0]), np.array([0.0, 6.0])]
    # (1*1 + 2*4 + 5*0) / 8 and (1*-2 + 2*0 + 5*6) / 8
    assert mean(sites, [1.0, 2.0, 5.0]).tolist() == [1.125, 3.5]


def test_a_thousand_half_precision_tenths_have_the_mean_of_one() -> None:
    for dtype in (np.float16, ml_dtypes.bfloat16):
        tenth = np.array([0.1, -0.1], dtype)
        assert mean([tenth] * 1000, [1.0] * 1000).tolist() == tenth.tolist()


def test_a_million_small_steps_are_not_lost_in_single_precision() -> None:
    # in float32, 1e8 + 1 is 1e8
    big, one = np.array([1e8], np.float32), np.array([1], np.float32)
    assert mean([big, *[one] * 99, -big], [1.0] * 101).tolist() == [np.float32(99 / 101)]


def test_int64_stays_int64_and_rounds_half_to_even() -> None:
    result = mean([np.array([1, 2, 2**52]), np.array([2, 3, 2**52 + 2])], [1.0, 1.0])
    assert result.dtype == np.int64
    assert result.tolist() == [2, 2, 2**52 + 1]


def test_an_integer_mean_beyond_its_dtype_is_an_error_and_not_a_wrap_around() -> None:
    top = np.array([2**63 - 1])
    with pytest.raises(RunError, match="out of its leaf's range; at path w; expected int64") as caught:
        mean([top, top], [1.0, 1.0])
    assert caught.value.path == "w"


def test_booleans_give_the_weighted_majority_and_a_tie_is_false() -> None:
    first, second = np.array([True, True, False]), np.array([True, False, False])
    assert mean([first, second], [1.0, 1.0]).tolist() == [True, False, False]
    assert mean([first, second], [2.0, 1.0]).tolist() == [True, True, False]


def test_complex_leaves_are_averaged_part_by_part() -> None:
    pair = [np.array([[1 + 2j], [3j]], np.complex64), np.array([[3 - 2j], [1 + 1j]], np.complex64)]
    assert mean(pair, [1.0, 3.0]).tolist() == [[2.5 - 1j], [0.75 + 1.5j]]


def test_scalars_empty_leaves_and_transposed_leaves_are_averaged() -> None:
    assert mean([np.array(1.0), np.array(2.0)], [1.0, 1.0]) == 1.5
    assert mean([np.empty((0, 3)), np.empty((0, 3))], [1.0, 1.0]).shape == (0, 3)
    grid = np.arange(6.0).reshape(2, 3)
    assert mean([grid.T, np.zeros((3, 2))], [1.0, 1.0]).tolist() == (grid.T / 2).tolist()
    strided = np.arange(8, dtype=np.complex64)[::2]
    assert mean([strided, strided], [1.0, 1.0]).tolist() == [0, 2, 4, 6]


def test_minus_zero_survives() -> None:
    assert np.signbit(mean([np.array([-0.0]), np.array([-0.0])], [1.0, 2.0]))[0]


def test_keys_come_back_in_the_order_of_the_model() -> None:
    like: dict[str, Any] = {"z": {"b": np.ones(1), "a": np.ones(1)}, "c": np.ones(1)}
    assert str(Mean().fold([like], [1.0])) == str(Mean().finish(Mean().add(Mean().zero(like), like, 1.0))) == str(like)


def test_nothing_added_has_no_mean() -> None:
    with pytest.raises(RunError, match="nothing was added"):
        Mean().finish(Mean().zero({"w": np.ones(1)}))
    with pytest.raises(RunError, match="nothing was added"):
        Mean().fold([], [])


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    tree = {"w": np.ones(1)}
    with pytest.raises(WeightError, match="finite number > 0"):
        Mean().add(Mean().zero(tree), tree, weight)
    with pytest.raises(WeightError):
        Mean().fold([tree], [weight])


def test_a_weight_for_each_update_is_needed() -> None:
    with pytest.raises(WeightError, match="expected 1; got 2"):
        Mean().fold([{"w": np.ones(1)}], [1.0, 2.0])


def test_weights_that_add_up_to_infinity_are_refused() -> None:
    tree = {"w": np.zeros(1)}
    with pytest.raises(WeightError, match="infinity"):
        Mean().fold([tree, tree], [1e308, 1e308])


def test_an_overflow_names_its_leaf() -> None:
    tree = {"a": np.ones(1), "big": np.array([1e308])}
    with pytest.raises(RunError) as caught:
        Mean().fold([tree, tree], [1.0, 1.0])
    assert caught.value.path == "big"
    with pytest.raises(RunError, match="at path big"):
        Mean().fold([tree, tree], [1.0, 1.0], threads=2)


@pytest.mark.parametrize(
    "update", [{"w": np.ones(3)}, {"w": np.ones(2, np.float32)}, {"v": np.ones(2)}, {"w": np.ones(2), "v": np.ones(1)}]
)
def test_an_update_with_other_leaves_leaves_the_sum_unchanged(update: Tree) -> None:
    acc = Mean().add(Mean().zero({"w": np.ones(2)}), {"w": np.array([1.0, 2.0])}, 3.0)
    before = acc.sums["w"].tobytes()
    with pytest.raises(SpecError):
        Mean().add(acc, update, 1.0)
    assert acc.sums["w"].tobytes() == before
    with pytest.raises(SpecError):
        Mean().fold([{"w": np.ones(2)}, update], [1.0, 1.0])


def test_a_reply_refused_at_the_gate_leaves_the_sum_unchanged_bit_for_bit() -> None:
    from hansa.core.gate import admit

    good, bad = {"w": np.array([0.1, 0.2])}, {"w": np.array([1.0, np.nan])}
    acc = Mean().add(Mean().zero(good), good, 3.0)
    before = acc.sums["w"].tobytes()
    with pytest.raises(NotFiniteError):
        admit(Shareable(bad), [Expect("", Spec.of(good))])
    assert acc.sums["w"].tobytes() == before
    assert Mean().finish(acc)["w"].tobytes() == mean([good["w"]], [3.0]).tobytes()


@pytest.mark.parametrize("leaf", [np.array([None]), np.array(["a"]), np.ones(1, np.longdouble), np.array(["2020"], "M8[Y]")])
def test_a_leaf_that_does_not_fit_into_float64_is_refused(leaf: Any) -> None:
    with pytest.raises(SpecError, match="cannot be summed; at path a/w"):
        Mean().zero({"a": {"w": leaf}})


def test_merging_accumulators_of_different_models_is_refused() -> None:
    with pytest.raises(SpecError, match="different leaves"):
        Mean().merge(Mean().zero({"w": np.ones(1)}), Mean().zero({"w": np.ones(2)}))


def test_narrower_updates_fold_to_the_dtypes_and_the_bits_that_they_have_when_widened() -> None:
    rng = np.random.default_rng(0)
    like = {"w": np.zeros(1000, np.float32)}
    for dtype in (np.float16, ml_dtypes.bfloat16):
        thin = [{"w": rng.standard_normal(1000).astype(dtype)} for _ in range(3)]
        folded = Mean().fold(thin, [1.0, 2.0, 3.0], like=like)["w"]
        wide = Mean().fold([{"w": each["w"].astype(np.float32)} for each in thin], [1.0, 2.0, 3.0])["w"]
        assert (folded.dtype, folded.tobytes()) == (np.float32, wide.tobytes())
    for wrong in ({"w": np.zeros(1000)}, {"w": np.zeros(999, np.float16)}, {"v": np.zeros(1000, np.float16)}):
        with pytest.raises(SpecError):
            Mean().fold([wrong], [1.0], like=like)
