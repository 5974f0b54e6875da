import ml_dtypes
import numpy as np
import pytest

from hansa import codec
from hansa.core import gate, half
from hansa.core.task import Expect, Shareable
from hansa.core.trees import Spec, Tree
from hansa.errors import NotFiniteError, SpecError, UpdateError

MODEL: Tree = {
    "w": np.zeros(3, np.float32),
    "n": np.zeros(2, np.int64),
    "scale": np.array(0.1, np.float32),
    "wide": np.zeros(1),
}


def sent(values: list[float], name: str = "float16") -> Shareable:
    body: Tree = {"delta": {**MODEL, "w": np.array(values, np.float32)}, "other": np.ones(2, np.float32)}
    return half.narrowed(Shareable(body, {"loss": 0.5}, {"round": 3}), name, ("delta",))


@pytest.mark.parametrize(("name", "unit", "tiny"), [("float16", 2.0**-11, 2.0**-25), ("bfloat16", 2.0**-8, 0.0)])
def test_a_value_is_off_by_no_more_than_is_said(name: str, unit: float, tiny: float) -> None:
    values = np.random.default_rng(0).standard_normal(10_000) * np.logspace(-9, 4, 10_000)
    exact = values.astype(np.float32)
    back = half.restored(half.narrowed(Shareable({"w": exact}), name)).body["w"]
    assert back.dtype == np.float32  # type: ignore[union-attr]
    off = np.abs(np.asarray(back, np.float64) - exact)
    assert (off <= np.maximum(unit * np.abs(exact.astype(np.float64)), tiny)).all()
    assert (off > unit / 2 * np.abs(exact)).any()  # the bound is not a loose one


def test_only_float32_arrays_of_the_tree_are_narrowed_and_the_message_says_so_over_the_wire() -> None:
    got = codec.decode(codec.encode(sent([1.0, 2.0, 3.0])))
    delta = got.body["delta"]
    kinds = {name: leaf.dtype.name for name, leaf in delta.items()}  # type: ignore[union-attr]
    assert kinds == {"w": "float16", "n": "int64", "scale": "float32", "wide": "float64"}
    assert got.body["other"].dtype == np.float32  # type: ignore[union-attr]
    assert (got.headers, got.metrics) == ({"round": 3, "half": "float16"}, {"loss": 0.5})
    back = half.restored(got)
    assert Spec.of(back.body["delta"]) == Spec.of(MODEL)  # type: ignore[arg-type]
    assert back.headers == {"round": 3}


def test_the_gate_takes_a_narrowed_update_and_still_refuses_what_does_not_fit_or_is_not_finite() -> None:
    expects = [Expect("delta", Spec.of(MODEL))]
    gate.admit(sent([1.0, 2.0, 3.0]), expects)
    gate.admit(sent([1.0, 2.0, 3.0], "bfloat16"), expects)
    with pytest.raises(NotFiniteError, match="at path delta/w"):
        gate.admit(sent([1.0, float("inf"), 3.0]), expects)
    with pytest.raises(SpecError, match="at path delta/w"):
        gate.admit(Shareable(sent([1.0, 2.0, 3.0]).body), expects)  # it does not say that it is narrowed
    with pytest.raises(SpecError, match="at path delta/w"):
        gate.admit(Shareable(sent([1.0, 2.0, 3.0]).body, headers={"half": "bfloat16"}), expects)
    with pytest.raises(SpecError, match="at path delta/w"):
        gate.admit(sent([1.0, 2.0]), expects)


def test_an_entry_beyond_the_range_is_an_error_at_the_site_and_not_an_infinity() -> None:
    with pytest.raises(UpdateError, match=r"beyond the range of half precision.*delta/w.*bfloat16 has the range"):
        sent([1.0, 70_000.0, 0.0])
    assert half.restored(sent([1.0, 2.0**100, 0.0], "bfloat16")).body["delta"]["w"][1] == np.float32(2.0**100)  # type: ignore[index]


def test_an_array_that_has_the_dtype_already_is_refused_since_it_could_not_be_told_apart() -> None:
    native = {"w": np.ones(2, ml_dtypes.bfloat16)}
    with pytest.raises(SpecError, match="has the dtype of the transfer already"):
        half.narrowed(Shareable(native), "bfloat16")
    assert half.restored(half.narrowed(Shareable(native), "float16")).body["w"] is native["w"]


def test_what_was_not_narrowed_stays_the_same_object() -> None:
    message = Shareable({"w": np.ones(2, np.float16)})
    assert half.restored(message) is message
    assert half.widened(message.body, message.headers) is message.body
