import numpy as np
import pytest

from hansa.aggregation.sums import Sum
from hansa.errors import RunError


def test_updates_count_once_whatever_their_weight() -> None:
    total = Sum()
    acc = total.add(total.zero({"w": np.zeros(2)}), {"w": np.array([1.0, 2.0])}, 7.0)
    acc = total.add(acc, {"w": np.array([0.5, -2.0])}, 0.0)
    assert total.finish(acc)["w"].tolist() == [1.5, 0.0]
    assert total.fold([{"w": np.array([1.0])}, {"w": np.array([2.0])}], [5.0, 5.0])["w"].tolist() == [3.0]


def test_an_integer_sum_beyond_its_dtype_is_an_error() -> None:
    tree = {"n": np.array([100], np.int8)}
    with pytest.raises(RunError, match="expected int8: -128 to 127; got 200 to 200"):
        Sum().fold([tree, tree])
    assert Sum().fold([{"n": np.array([-64], np.int8)}] * 2)["n"].tolist() == [-128]


def test_a_float_sum_beyond_its_dtype_is_an_error() -> None:
    for dtype, size in ((np.float16, 6e4), (np.float32, 3e38)):
        with pytest.raises(RunError, match="at path w"):
            Sum().fold([{"w": np.array([size], dtype)}] * 2)


def test_a_boolean_sum_is_true_where_any_update_is() -> None:
    assert Sum().fold([{"b": np.array([True, False])}, {"b": np.array([True, False])}])["b"].tolist() == [True, False]


def test_unsigned_64_bit_integers_are_summed() -> None:
    result = Sum().fold([{"n": np.array([2**62], np.uint64)}] * 3)["n"]
    assert result.dtype == np.uint64
    assert result.tolist() == [3 * 2**62]
