import pickle

import numpy as np
import pytest

from hansa.aggregation.filters import HalfPrecision, clip
from hansa.core.task import FLContext, Shareable
from hansa.core.trees import equal, leaves
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


def test_half_precision_narrows_updates_and_task_data_and_nothing_else() -> None:
    evaluation = Shareable({"sums": {"auc": np.ones(3, np.float32)}})
    thin = HalfPrecision("bfloat16")
    assert thin(evaluation, FLContext()) is evaluation
    update = Shareable({"delta": {"w": np.ones(3, np.float32)}, "weight": np.array(7.0, np.float32)})
    assert {k: v.dtype.name for k, v in leaves(thin(update, FLContext()).body)} == {"delta/w": "bfloat16", "weight": "float32"}
    out = thin.on_task(Shareable({"model": {"w": np.ones(3, np.float32)}, "round": np.array(3)}))
    assert {k: v.dtype.name for k, v in leaves(out.body)} == {"model/w": "bfloat16", "round": "int64"}
    assert HalfPrecision(task=False).on_task(update) is update
    with pytest.raises(ConfigError, match="float16 or bfloat16"):
        HalfPrecision("float8")
