"""Server optimizers against three steps of TensorFlow Federated 0.87, and what they leave alone."""

from typing import Any

import numpy as np
import pytest

from hansa.core import trees
from hansa.core.trees import Tree
from hansa.errors import ConfigError
from hansa.learning.optimizers import Optimizer, advance, trained
from hansa.learning.schedules import Inverse

MODEL = {"w": np.array([1.0, 2.0])}
GRADIENT = {"w": np.array([0.5, -1.0])}
GOLDEN: list[tuple[dict[str, Any], list[float]]] = [
    ({"name": "sgd"}, [0.85, 2.3]),
    ({"name": "sgd", "momentum": 0.9}, [0.7195, 2.561]),
    ({"name": "adam"}, [0.700001, 2.299999]),
    ({"name": "adagrad"}, [0.796702, 2.221149]),
    ({"name": "yogi"}, [0.714154, 2.292794]),
]


def three_steps(optimizer: Optimizer) -> np.ndarray[Any, Any]:
    model: Tree = MODEL
    state = optimizer.start(MODEL)
    for number in (1, 2, 3):
        model, state = optimizer.step(model, GRADIENT, state, lr=0.1, number=number)
    return np.asarray(model["w"])


@pytest.mark.parametrize(("settings", "expected"), GOLDEN, ids=lambda case: str(case))
def test_three_steps_give_the_values_of_tensorflow_federated(settings: dict[str, Any], expected: list[float]) -> None:
    assert three_steps(Optimizer(**settings)) == pytest.approx(expected, abs=1e-5)


def test_a_schedule_gives_the_values_of_tensorflow_federated() -> None:
    model: Tree = MODEL
    for done in range(3):
        model, _ = Optimizer().step(model, GRADIENT, {}, lr=Inverse(0.1)(done), number=done + 1)
    assert np.asarray(model["w"]) == pytest.approx([0.908333, 2.183333], abs=1e-5)


def test_a_step_changes_neither_the_model_nor_the_state_it_was_given() -> None:
    optimizer = Optimizer("adam")
    state = optimizer.start(MODEL)
    before = trees.copy(state)
    optimizer.step(MODEL, GRADIENT, state, lr=0.1, number=1)
    assert MODEL["w"].tolist() == [1.0, 2.0]
    assert trees.equal(state, before)


def test_counters_and_running_statistics_take_the_mean_change_as_it_is() -> None:
    model = {"w": np.ones(1), "bn.running_var": np.ones(1), "bn.num_batches_tracked": np.array(3)}
    delta = {"w": np.ones(1), "bn.running_var": np.full(1, -0.5), "bn.num_batches_tracked": np.array(2)}
    adam = Optimizer("adam")
    after, slots = advance(model, delta, lr=0.1, optimizer=adam, state=adam.start(model), number=1)
    assert after["bn.running_var"].tolist() == [0.5]
    assert after["bn.num_batches_tracked"] == 5
    assert after["bn.num_batches_tracked"].dtype == np.int64
    assert after["w"] == pytest.approx([1.1])
    assert list(trained(model)) == ["w"]
    assert {name: list(slot) for name, slot in slots.items()} == {"first": ["w"], "second": ["w"]}


def test_plain_sgd_at_one_adds_the_change_in_the_models_own_dtype() -> None:
    model, delta = {"w": np.array([1.0], np.float16)}, {"w": np.array([2.0], np.float16)}
    after, _ = advance(model, delta)
    assert after["w"].dtype == np.float16
    assert after["w"] == [3.0]


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"name": "adaam"}, "optimizer"),
        ({"momentum": 1.0}, "momentum"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"name": ["adam"]}, "optimizer"),
        ({"momentum": "x"}, "momentum"),
        ({"betas": (0.9,)}, "betas"),
        ({"betas": 0.9}, "betas"),
        ({"epsilon": "x"}, "epsilon"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Optimizer(**settings)
    assert caught.value.path == path


def test_the_nearest_optimizer_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'adam'"):
        Optimizer("adaam")  # type: ignore[arg-type]  # the point of the test


def test_the_plain_step_works_in_the_memory_of_the_change_where_it_is_free() -> None:
    model, change = {"w": np.ones(2, np.float32)}, {"w": np.full(2, 0.5, np.float32)}
    after, _ = advance(model, change)
    assert (after["w"].tolist(), after["w"] is change["w"]) == ([1.5, 1.5], True)
    shared = np.full((2, 2), 0.5, np.float32)
    for taken in (shared[0], np.broadcast_to(np.float32(0.5), 2), np.full(2, 0.5)):  # a view, read-only, another dtype
        after, _ = advance(model, {"w": taken})
        assert (after["w"].tolist(), after["w"].dtype, taken.tolist()) == ([1.5, 1.5], np.float32, [0.5, 0.5])
    assert model["w"].tolist() == [1, 1]
