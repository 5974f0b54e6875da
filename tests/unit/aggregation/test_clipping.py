from typing import Any

import numpy as np
import pytest

from hansa.aggregation.clipping import clip
from hansa.core.trees import equal
from hansa.errors import ConfigError, NotFiniteError


def test_the_norm_is_over_all_leaves_together() -> None:
    update: dict[str, Any] = {"a": np.array([3.0], np.float32), "b": {"c": np.array([[4.0]])}}
    clipped, scaled = clip(update, norm=2.5)
    assert scaled
    assert equal(clipped, {"a": np.array([1.5], np.float32), "b": {"c": np.array([[2.0]])}})
    assert update["a"].tolist() == [3.0]


def test_a_short_update_is_left_alone() -> None:
    update = {"a": np.array([3.0, 4.0])}
    assert clip(update, norm=5.0) == (update, False)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_update_is_refused_with_its_leaf(poison: float) -> None:
    with pytest.raises(NotFiniteError) as caught:
        clip({"a": np.ones(1), "b": {"c": np.array([1.0, poison])}}, norm=1.0)
    assert caught.value.path == "b/c"


def test_a_norm_beyond_float64_is_refused() -> None:
    with pytest.raises(NotFiniteError, match="norm inf"):
        clip({"a": np.array([1e200])}, norm=1.0)


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan"), float("inf")])
def test_a_norm_that_means_nothing_is_refused(norm: float) -> None:
    with pytest.raises(ConfigError, match="norm"):
        clip({}, norm=norm)


def test_counters_take_no_part_in_the_norm_and_stay_as_they_are() -> None:
    # 400 batches counted would leave (3, 4) * 2.5 / 400.03 otherwise.
    update = {"w": np.array([3.0, 4.0]), "bn.num_batches_tracked": np.array(400), "seen": np.array([True])}
    clipped, scaled = clip(update, norm=2.5)
    assert scaled
    assert equal(clipped, {"w": np.array([1.5, 2.0]), "bn.num_batches_tracked": np.array(400), "seen": np.array([True])})
    assert clip(update, norm=5.0) == (update, False)
