"""The strategies give what their docstrings say: users build their own laws upon them."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.core.trees import Spec, flatten, unflatten
from hansa.testing.strategies import DTYPES, FLOATS, Weighted, specs, trees, updates

few = settings(max_examples=50, deadline=None)


@few
@given(specs(max_leaves=3))
def test_a_spec_is_sorted_and_its_paths_make_a_tree(spec: Spec) -> None:
    paths = [path for path, _ in spec.items]
    assert paths == sorted(set(paths))
    assert 1 <= len(paths) <= 3
    assert flatten(unflatten(dict.fromkeys(paths, np.zeros(1)))).keys() == set(paths)
    assert {leaf.dtype.name for _, leaf in spec.items} <= set(DTYPES)


@few
@given(specs().flatmap(lambda spec: st.tuples(st.just(spec), trees(spec, bound=10))))
def test_a_tree_has_the_spec_asked_for_and_bounded_entries(pair: tuple[Spec, dict[str, Any]]) -> None:
    spec, tree = pair
    spec.check(tree)
    assert Spec.of(tree) == spec
    assert all(np.all(np.abs(leaf.astype(float)) <= 10) for leaf in flatten(tree).values())


@few
@given(updates(dtypes=FLOATS, max_size=3, max_weight=10.0))
def test_updates_share_a_spec_and_have_weights_that_the_gate_admits(found: list[Weighted]) -> None:
    assert 1 <= len(found) <= 3
    assert len({Spec.of(update) for update, _ in found}) == 1
    assert all(0 < weight <= 10 for _, weight in found)
