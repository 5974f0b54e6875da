"""Laws of the codec: what goes in comes out, and no buffer raises anything but an error of ours."""

import json
import math
import struct
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa import codec
from hansa.core import trees
from hansa.core.task import Shareable
from hansa.errors import HansaError

DTYPES = [*map(np.dtype, ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]), np.dtype(ml_dtypes.bfloat16)]
keys = st.text(st.characters(exclude_characters="/", exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, np.dtype[Any]]:
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    size = math.prod(shape) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    bits = bytes(b & 1 for b in raw) if dtype.kind == "b" else raw
    return np.frombuffer(bits, dtype).reshape(shape)


bodies = st.dictionaries(
    keys, st.recursive(arrays(), lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=6), max_size=4
)
scalars = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)
)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
messages = st.builds(
    Shareable,
    body=bodies,
    metrics=st.dictionaries(names, st.floats(), max_size=3),
    headers=st.dictionaries(names, scalars, max_size=3),
)


@settings(max_examples=80, deadline=None)
@given(messages)
def test_a_message_comes_back_bit_for_bit(message: Shareable) -> None:
    got = codec.decode(codec.encode(message))
    assert trees.equal(got.body, message.body)
    assert got.headers == message.headers
    assert [type(got.headers[k]) for k in got.headers] == [type(message.headers[k]) for k in got.headers]
    assert np.array_equal([got.metrics[k] for k in got.metrics], [message.metrics[k] for k in got.metrics], equal_nan=True)
    assert codec.encode(got) == codec.encode(message)


def decoded_or_refused(data: bytes) -> None:
    try:
        codec.decode(data)
    except HansaError:
        return


@settings(max_examples=80, deadline=None)
@given(messages, st.data())
def test_a_cut_or_changed_message_raises_nothing_but_our_errors(message: Shareable, data: st.DataObject) -> None:
    good = codec.encode(message)
    decoded_or_refused(good[: data.draw(st.integers(0, len(good)))])
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    decoded_or_refused(bytes(bad))


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200))
def test_noise_raises_nothing_but_our_errors(data: bytes) -> None:
    decoded_or_refused(data)
    decoded_or_refused(struct.pack("<Q", len(data)) + data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BOOL", "BF16", "O"]),
        "shape": st.lists(st.integers(-1, 2**65), max_size=4),
        "data_offsets": st.lists(st.integers(-1, 64), min_size=2, max_size=2),
    }
)


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["a", "a/b", "b", "", "__metadata__"]), entries | json_values, max_size=3),
    st.binary(max_size=64),
)
def test_any_header_raises_nothing_but_our_errors(header: Any, body: bytes) -> None:
    text = json.dumps(header).encode()
    decoded_or_refused(struct.pack("<Q", len(text)) + text + body)
