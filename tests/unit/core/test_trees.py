"""Trees: leaves by path, arithmetic leaf by leaf, and specs that name the first wrong leaf."""

from typing import Any

import numpy as np
import pytest

from hansa.core import trees
from hansa.core.trees import Spec, Tree
from hansa.errors import SpecError

NESTED: Tree = {"head": {"weight": np.array([3.0, 4.0])}, "bias": np.array([12.0])}


def test_leaves_come_with_their_paths_and_go_back() -> None:
    assert [path for path, _ in trees.leaves(NESTED)] == ["head/weight", "bias"]
    assert trees.equal(trees.unflatten(trees.flatten(NESTED)), NESTED)
    assert list(trees.unflatten({"1.weight": np.ones(1)})) == ["1.weight"]


@pytest.mark.parametrize("paths", [["a", "a/b"], ["a/b", "a"], [""], ["a//b"], ["/a"]])
def test_a_path_that_is_leaf_and_branch_or_empty_is_refused(paths: list[str]) -> None:
    with pytest.raises(SpecError):
        trees.unflatten({path: np.ones(1) for path in paths})


def test_arithmetic_keeps_the_left_dtype_and_its_arguments() -> None:
    left, right = {"w": np.array([1.0], np.float16)}, {"w": np.array([0.5], np.float64)}
    assert trees.add(left, right)["w"].dtype == np.float16
    assert trees.subtract(left, right)["w"].tolist() == [0.5]
    assert left["w"].tolist() == [1.0]


def test_scaling_rounds_integers_half_to_even() -> None:
    assert trees.scale({"n": np.array([1, 3, 5])}, 0.5)["n"].tolist() == [0, 2, 2]
    assert trees.scale({"n": np.array([1, 3, 5])}, 0.5)["n"].dtype == np.int64


def test_the_norm_is_over_all_leaves_in_float64() -> None:
    assert trees.norm(NESTED) == 13.0
    assert trees.norm({"w": np.full(4, 300.0, np.float16)}) == 600.0  # the squares leave float16's range


@pytest.mark.parametrize(
    ("left", "right", "path"),
    [
        ({"a": np.ones(1)}, {"b": np.ones(1)}, "a"),
        ({"a": np.ones(1)}, {"a": np.ones(1), "c": np.ones(1)}, "c"),
        ({"a": {"b": np.ones(1)}}, {"a": np.ones(1)}, "b"),
    ],
)
def test_trees_with_different_keys_are_not_combined(left: Tree, right: Tree, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        trees.add(left, right)
    assert caught.value.path == path


def test_splitting_and_merging_by_patterns() -> None:
    tree = {"head": {"w": np.ones(1), "b": np.ones(1)}, "body": {"w": np.ones(1)}}
    chosen, rest = trees.split(tree, ["head/*"])
    assert list(trees.flatten(chosen)) == ["head/w", "head/b"]
    assert list(trees.flatten(rest)) == ["body/w"]
    assert trees.equal(trees.merge(chosen, rest), tree)
    assert trees.merge(tree, {"body": {"w": np.zeros(1)}})["body"]["w"].tolist() == [0.0]


def test_equality_is_of_bits_dtypes_and_shapes() -> None:
    assert trees.equal({"a": np.zeros(2)}, {"a": np.zeros(2)})
    assert not trees.equal({"a": np.zeros(2)}, {"a": np.zeros(2, np.float32)})
    assert not trees.equal({"a": np.zeros((2, 1))}, {"a": np.zeros(2)})
    assert not trees.equal({"a": np.array([0.0])}, {"a": np.array([-0.0])})


def test_a_copy_has_its_own_arrays() -> None:
    copied = trees.copy(NESTED)
    copied["bias"][0] = 0.0
    assert NESTED["bias"][0] == 12.0  # type: ignore[index]  # a leaf


def test_a_spec_prints_sorted_counts_bytes_and_accepts_its_tree() -> None:
    spec = Spec.of({"b": np.zeros((), np.int64), "a": {"w": np.zeros((2, 3), np.float32)}})
    assert str(spec) == "<a/w=float32[2,3],b=int64>"
    assert spec.nbytes == 32
    spec.check({"a": {"w": np.ones((2, 3), np.float32)}, "b": np.ones((), np.int64)})


WRONG: list[tuple[Any, str, str]] = [
    ({"b": np.zeros(2)}, "a", "missing"),
    ({"a": np.zeros(1), "b": np.zeros(2), "c": np.zeros(1)}, "c", "not expected"),
    ({"a": np.zeros(1, np.float32), "b": np.zeros(2)}, "a", "expected float64\\[1\\]; got float32\\[1\\]"),
    ({"a": np.zeros(1), "b": np.zeros(3)}, "b", "expected float64\\[2\\]; got float64\\[3\\]"),
    ({"a": [0.0], "b": np.zeros(2)}, "a", "got list"),
    ([1, 2], "", "not a tree"),
]


@pytest.mark.parametrize(("tree", "path", "message"), WRONG)
def test_the_first_leaf_that_does_not_fit_is_named(tree: Any, path: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        Spec.of({"a": np.zeros(1), "b": np.zeros(2)}).check(tree, path="delta")
    assert caught.value.path == f"delta/{path}".rstrip("/")
