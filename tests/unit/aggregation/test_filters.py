import pickle

import numpy as np
import pytest

from hansa.aggregation.filters import clip
from hansa.core.task import FLContext, Shareable
from hansa.core.trees import equal
from hansa.errors import ConfigError, SpecError
from hansa.registry import find


def test_only_the_update_is_clipped() -> None:
    sent = Shareable({"delta": {"w": np.array([3.0, 4.0])}, "examples": np.array(60)}, metrics={"loss": 0.5})
    got = clip(2.5)(sent, FLContext())
    assert equal(got.body, {"delta": {"w": np.array([1.5, 2.0])}, "examples": np.array(60)})
    assert got.metrics == {"loss": 0.5}
    assert equal(sent.body, {"delta": {"w": np.array([3.0, 4.0])}, "examples": np.array(60)})


def test_the_whole_body_or_a_deeper_place_can_be_clipped() -> None:
    whole = clip(1.0, path="")(Shareable({"w": np.array([2.0])}), FLContext()).body
    assert equal(whole, {"w": np.array([1.0])})
    deep = clip(1.0, path="a/b")(Shareable({"a": {"b": {"w": np.array([2.0])}}}), FLContext()).body
    assert equal(deep, {"a": {"b": {"w": np.array([1.0])}}})


def test_a_reply_that_carries_no_update_passes_as_it_is() -> None:
    sums = Shareable({"sums": {"loss": {"total": np.array(9.0)}}})
    assert clip(1.0)(sums, FLContext()) is sums


@pytest.mark.parametrize("path", ["delta/w", "delta/v"])
def test_a_path_without_a_tree_is_refused(path: str) -> None:
    with pytest.raises(SpecError) as caught:
        clip(1.0, path=path)(Shareable({"delta": {"w": np.ones(1)}}), FLContext())
    assert caught.value.path == path


def test_a_bad_norm_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigError):
        clip(-1.0)


def test_it_pickles_and_is_found_by_name() -> None:
    assert pickle.loads(pickle.dumps(clip(2.0))) == clip(2.0)
    assert find("filters", "clip") is clip
