from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hansa.core.gate import BLOCK, admit
from hansa.core.task import Expect, Shareable
from hansa.core.trees import Spec, copy, equal
from hansa.errors import NotFiniteError, SpecError, WeightError

LIKE: dict[str, Any] = {"head": {"w": np.zeros((2, 3), np.float32)}, "n": np.zeros(2, np.int64)}


def reply(**changes: Any) -> Shareable:
    body: dict[str, Any] = {
        "delta": {"head": {"w": np.ones((2, 3), np.float32)}, "n": np.ones(2, np.int64)},
        "examples": np.array(60),
    }
    return Shareable({**body, **changes})


def gate(shareable: Shareable, **settings: Any) -> None:
    admit(shareable, [Expect(**{"path": "delta", "spec": Spec.of(LIKE), "weight": "examples", **settings})])


def test_a_good_reply_passes_and_is_not_changed() -> None:
    good = reply()
    before = copy(good.body)
    gate(good)
    assert equal(good.body, before)


@pytest.mark.parametrize(
    ("delta", "path"),
    [
        ({"head": {"w": np.ones((2, 3), np.float32)}}, "delta/n"),
        ({"head": {"w": np.ones((2, 3), np.float32)}, "n": np.ones(2, np.int64), "x": np.ones(1)}, "delta/x"),
        ({"head": {"w": np.ones((3, 2), np.float32)}, "n": np.ones(2, np.int64)}, "delta/head/w"),
        ({"head": {"w": np.ones((2, 3), np.float64)}, "n": np.ones(2, np.int64)}, "delta/head/w"),
        ({"head": {"w": np.ones((2, 3), ">f4")}, "n": np.ones(2, np.int64)}, "delta/head/w"),
        ({"head": {"w": [[1, 1, 1]] * 2}, "n": np.ones(2, np.int64)}, "delta/head/w"),
        ({"head": np.ones((2, 3), np.float32), "n": np.ones(2, np.int64)}, "delta/head/w"),
        (np.ones((2, 3), np.float32), "delta"),
        ("a string", "delta"),
        (None, "delta"),
    ],
)
def test_other_leaves_are_refused_with_their_path(delta: Any, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        gate(reply(delta=delta))
    assert caught.value.path == path


@pytest.mark.parametrize("path", ["update", "delta/head/w/x", "examples/x"])
def test_a_missing_part_is_refused(path: str) -> None:
    with pytest.raises(SpecError, match="missing") as caught:
        gate(reply(), path=path)
    assert caught.value.path == path


@pytest.mark.parametrize(
    "weight",
    [
        np.array(0),
        np.array(-1.0),
        np.array(np.nan),
        np.array(np.inf),
        np.array(1001),
        np.array(True),
        np.array([60]),
        np.array(60 + 0j),
        np.array("60"),
        np.array(None),
        True,
        None,
        "60",
        {"n": np.array(60)},
    ],
)
def test_what_is_no_weight_is_refused(weight: Any) -> None:
    with pytest.raises(WeightError, match="at path examples; expected a finite number > 0 and <= 1000") as caught:
        gate(reply(examples=weight), weight_cap=1000.0)
    assert caught.value.path == "examples"


@pytest.mark.parametrize("weight", [np.array(1000), np.float32(0.5), np.array(3, np.uint8), 7, 0.25])
def test_a_weight_is_any_real_scalar_up_to_the_cap(weight: Any) -> None:
    gate(reply(examples=weight), weight_cap=1000.0)


def test_the_spec_is_looked_at_before_the_weight_and_the_weight_before_the_entries() -> None:
    poisoned = {"head": {"w": np.full((2, 3), np.nan, np.float32)}, "n": np.ones(2, np.int64)}
    with pytest.raises(SpecError):
        gate(reply(delta={"head": {}}, examples=np.array(0)))
    with pytest.raises(WeightError):
        gate(reply(delta=poisoned, examples=np.array(0)))
    with pytest.raises(NotFiniteError, match=r"at path delta/head/w; expected finite numbers; got nan at \[0,0\]"):
        gate(reply(delta=poisoned))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64", "longdouble", "complex64", "complex128"])
def test_one_poisoned_entry_is_named_in_any_dtype(dtype: Any, poison: float) -> None:
    leaf = np.ones((2, 3), dtype)
    admit(Shareable({"w": leaf}), [Expect("")])
    leaf[1, 2] = poison
    with pytest.raises(NotFiniteError, match=r"at path w; .* at \[1,2\]"):
        admit(Shareable({"w": leaf}), [Expect("")])
    with pytest.raises(NotFiniteError, match=r"at \[2,1\]"):
        admit(Shareable({"w": leaf.T}), [Expect("")])
    with pytest.raises(NotFiniteError, match=r"at \[1\]"):
        admit(Shareable({"w": leaf[:, ::2][:, 1]}), [Expect("")])


def test_the_imaginary_part_counts() -> None:
    with pytest.raises(NotFiniteError):
        admit(Shareable({"w": np.array([complex(0, np.nan)])}), [Expect("")])


def test_the_last_entry_of_many_blocks_is_found() -> None:
    leaf = np.ones(2 * BLOCK + 1, np.float32)
    leaf[-1] = np.inf
    with pytest.raises(NotFiniteError, match=rf"inf at \[{2 * BLOCK}\]"):
        admit(Shareable({"w": leaf}), [Expect("")])


def test_large_finite_entries_pass_though_their_squares_overflow() -> None:
    for dtype, largest in ((np.float16, 65504), (np.float32, 3.4e38), (np.float64, 1.7e308), (ml_dtypes.bfloat16, 3.3e38)):
        admit(Shareable({"w": np.full(5, largest, dtype)}), [Expect("")])


def test_scalars_empty_arrays_integers_and_booleans_pass() -> None:
    body: dict[str, Any] = {
        "a": np.array(1.0),
        "b": np.empty((0, 2)),
        "c": np.array([2**63 - 1]),
        "d": np.array([True]),
        "e": np.float32(1),
    }
    admit(Shareable(body), [Expect("")])
    with pytest.raises(NotFiniteError, match=r"got nan \(|got nan$"):
        admit(Shareable({"a": np.array(np.nan)}), [Expect("")])


def test_a_single_array_stands_at_its_path() -> None:
    admit(Shareable({"loss": np.array(0.5)}), [Expect("loss")])
    admit(Shareable({"loss": np.array(0.5)}), [Expect("loss", Spec.of({"": np.array(0.0)}))])
    with pytest.raises(SpecError, match=r"at path loss; expected float64; got float64\[1\]"):
        admit(Shareable({"loss": np.array([0.5])}), [Expect("loss", Spec.of({"": np.array(0.0)}))])
    with pytest.raises(SpecError, match="not an array"):
        admit(Shareable({"loss": "low"}), [Expect("loss", Spec.of({"": np.array(0.0)}))])  # type: ignore[dict-item]  # hostile
    with pytest.raises(NotFiniteError) as caught:
        admit(Shareable({"loss": np.array(np.inf)}), [Expect("loss")])
    assert caught.value.path == "loss"


@pytest.mark.parametrize("leaf", [np.array([None]), np.array(["a"]), np.array(["2020"], "M8[Y]"), np.zeros(1, "i4,f4"), 1.0, [1.0]])
def test_what_is_not_an_array_of_numbers_is_refused_without_a_spec_too(leaf: Any) -> None:
    with pytest.raises(SpecError, match="at path w"):
        admit(Shareable({"w": leaf}), [Expect("")])


def test_every_expected_part_is_checked() -> None:
    body = {"a": {"w": np.ones(1)}, "b": {"w": np.array([np.nan])}}
    with pytest.raises(NotFiniteError, match="at path b/w"):
        admit(Shareable(body), [Expect("a"), Expect("b")])
    admit(Shareable(body), [Expect("a")])
