from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa import codec
from hansa.compat.flare import wire
from hansa.compat.flare.apis.dxo import DXO, DataKind, from_bytes, from_shareable
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.abstract.model import ModelLearnable
from hansa.core import task as core
from hansa.errors import SpecError

scalars = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(0, 9), inner),
    max_leaves=12,
)


@given(nested)
def test_containers_of_plain_values_come_back_as_they_were(value: object) -> None:
    assert wire.from_bytes(wire.to_bytes(value)) == value


def test_arrays_shareables_and_dxos_come_back_with_their_types_and_can_be_changed() -> None:
    inner = DXO(DataKind.WEIGHTS, {"w": np.ones((2, 2), np.float32), "n": np.int64(3)}, {"steps": 4})
    sent = DXO(DataKind.COLLECTION, {"a": inner}, {"loss": float("nan")}).to_shareable()
    sent.add_cookie("round", 2)
    got: Any = Shareable.from_bytes(sent.to_bytes())
    part = from_shareable(got).data["a"]
    part.data["w"] += 1
    assert (type(got), type(part), got.get_cookie("round")) == (Shareable, DXO, 2)
    assert (part.data["w"].dtype, part.data["w"].tolist(), type(part.data["n"])) == (np.float32, [[2, 2], [2, 2]], np.int64)
    assert np.isnan(from_shareable(got).meta["loss"])
    assert inner.data["w"].tolist() == [[1, 1], [1, 1]]
    assert from_bytes(inner.to_bytes()).meta == {"steps": 4}


@pytest.mark.parametrize(
    ("value", "path", "got"),
    [
        ({"a": {"b": [1, object()]}}, "a/b/1", "object"),
        ({"f": len}, "f", "builtin_function_or_method"),
        ({"x": np.array(["text"])}, "x", "an array of <U4"),
        ({"x": np.array([None])}, "x", "an array of object"),
        ({"s": {1, 2}}, "s", "set"),
        ({"n": 1 << 64}, "n", "int"),
        ({("a", 1): 2}, None, "tuple"),
    ],
)
def test_anything_else_is_refused_by_name(value: object, path: str | None, got: str) -> None:
    with pytest.raises(SpecError) as caught:
        wire.to_bytes(value)
    assert (caught.value.path, caught.value.got) == (path, got)


def test_a_tensor_is_refused_with_what_to_send_in_its_place() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(SpecError, match=r"at path DXO/data/w; .*got Tensor \(tensor.detach\(\).cpu\(\).numpy\(\)\)"):
        DXO(DataKind.WEIGHTS, {"w": torch.zeros(2)}).to_shareable().to_bytes()


def test_a_container_in_itself_is_refused() -> None:
    ring: dict[str, Any] = {}
    ring["ring"] = ring
    with pytest.raises(SpecError, match="too deep"):
        wire.to_bytes(ring)


class Kind(str, Enum):  # noqa: UP042  as later FLARE has it
    """As later FLARE has its kinds."""

    WEIGHTS = "WEIGHTS"


def test_kinds_that_are_enums_are_sent_as_their_values() -> None:
    assert wire.from_bytes(wire.to_bytes({"kind": Kind.WEIGHTS})) == {"kind": "WEIGHTS"}


@pytest.mark.parametrize("body", [{}, {"content": np.zeros(3, np.uint8)}, {"content": np.full(3, 0xC1, np.uint8), "arrays": {}}])
def test_bytes_that_are_no_message_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        wire.from_bytes(codec.encode(core.Shareable(body)))


@given(st.binary(max_size=60))
def test_hostile_content_never_does_more_than_be_refused(content: bytes) -> None:
    message = core.Shareable({"content": np.frombuffer(content, np.uint8), "arrays": {"0": np.zeros(2)}})
    try:
        wire.unpack(message)
    except (SpecError, ValueError):
        return


def test_a_learnable_comes_back_as_its_own_class() -> None:
    made = ModelLearnable()
    made["weights"] = {"w": np.zeros(2)}
    got: Any = ModelLearnable.from_bytes(made.to_bytes())
    assert (type(got), got.is_empty(), ModelLearnable().is_empty()) == (ModelLearnable, False, True)


def test_an_array_that_goes_to_several_is_copied_once_until_it_changes() -> None:
    array, copies = np.arange(6.0).reshape(2, 3), wire.Copies()
    first, second = copies.of(array), copies.of(array)
    array += 1
    third = copies.of(array)
    assert (first is second, third is first, first[0, 0], third[0, 0]) == (True, False, 0.0, 1.0)
    turned = copies.of(array.T)
    assert turned.tolist() == array.T.tolist()


def test_an_array_that_is_named_twice_is_refused_before_it_is_copied() -> None:
    message = wire.pack([np.zeros(4), np.ones(4)])
    content = np.asarray(message.body["content"]).tobytes()
    twice = {**message.body, "content": np.frombuffer(content.replace(b"1", b"0"), np.uint8)}
    with pytest.raises(SpecError, match="not a message"):
        wire.unpack(core.Shareable(twice))
