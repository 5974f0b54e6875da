"""Types against the package of TensorFlow Federated's own: generated types print, compare and fit alike.

`federated-language` caps ml_dtypes and protobuf below what we install, so `dev` does not have it: `make test-oracle` runs this
module in an environment that has it, and elsewhere it is skipped.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.core import types as ours

theirs = pytest.importorskip("federated_language")

DTYPES = [np.bool_, np.int8, np.int32, np.int64, np.uint8, np.uint64, np.float16, np.float32, np.float64, np.complex64, np.str_]
Both = tuple[Any, Any]  # one type, made here and there

shapes = st.none() | st.lists(st.none() | st.integers(0, 4), max_size=3)
tensors = st.builds(lambda d, s: (ours.TensorType(d, s), theirs.TensorType(d, s)), st.sampled_from(DTYPES[:4]), shapes)
scalars = st.sampled_from([(ours.TensorType(d), theirs.TensorType(d)) for d in DTYPES])
names = st.sampled_from([None, "a", "b", "weight"])


def struct(parts: list[tuple[str | None, Both]], container: type | None) -> Both:
    taken: set[str] = set()
    unique = [(None if n is None or n in taken else taken.add(n) or n, both) for n, both in parts]  # type: ignore[func-returns-value]  # adds
    mine, other = [[(n, b[i]) if n else b[i] for n, b in unique] for i in (0, 1)]
    if container is None:
        return ours.StructType(mine), theirs.StructType(other)
    return ours.StructType(mine, container), theirs.StructWithPythonType(other, container)


def structs(inner: st.SearchStrategy[Both]) -> st.SearchStrategy[Both]:
    return st.builds(struct, st.lists(st.tuples(names, inner), max_size=3), st.sampled_from([None, list, tuple]))


def sequence(both: Both) -> Both:
    return ours.SequenceType(both[0]), theirs.SequenceType(both[1])


def federated(both: Both, at_clients: bool, all_equal: bool | None) -> Both:
    return (
        ours.FederatedType(both[0], ours.CLIENTS if at_clients else ours.SERVER, all_equal),
        theirs.FederatedType(both[1], theirs.CLIENTS if at_clients else theirs.SERVER, all_equal),
    )


def function(parameter: Both | None, result: Both) -> Both:
    takes = parameter or (None, None)
    return ours.FunctionType(takes[0], result[0]), theirs.FunctionType(takes[1], result[1])


elements = st.recursive(tensors | scalars, structs, max_leaves=5)
members = elements | st.builds(sequence, elements) | structs(elements | st.builds(sequence, elements))
placed = members | st.builds(federated, members, st.booleans(), st.sampled_from([None, True, False]))
kinds = placed | structs(placed) | st.builds(function, st.none() | placed, placed)


@settings(max_examples=400, deadline=None)
@given(kinds)
def test_a_generated_type_prints_as_the_oracle_prints_it(both: Both) -> None:
    mine, other = both
    assert (str(mine), mine.formatted_representation()) == (str(other), other.formatted_representation())
    assert repr(mine) == repr(other)


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.tuples(kinds, kinds), st.tuples(tensors, tensors), kinds.map(lambda both: (both, both))))
def test_generated_types_fit_each_other_where_the_oracle_says_so(pair: tuple[Both, Both]) -> None:
    (target, their_target), (source, their_source) = pair
    assert target.is_assignable_from(source) == their_target.is_assignable_from(their_source)
    assert source.is_assignable_from(target) == their_source.is_assignable_from(their_target)
    assert target.is_equivalent_to(source) == their_target.is_equivalent_to(their_source)
    assert (target == source) == (their_target == their_source)


values = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(width=32)
    | st.text(max_size=3)
    | st.just(np.zeros((2, 3), np.int8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_a_generated_value_has_the_type_that_the_oracle_infers(value: object) -> None:
    # str, not repr: there a list forgets that it is one where an element looks like a (name, value) pair, be it the text "ab"
    assert str(ours.infer_type(value)) == str(theirs.framework.infer_type(value))
