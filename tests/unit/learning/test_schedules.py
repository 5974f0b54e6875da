"""Schedules: values by hand, and what a job file may write."""

from typing import Any

import pytest

from hansa.errors import ConfigError
from hansa.learning.schedules import Constant, Cosine, Exponential, Inverse, Step, of


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(0.1), [0.1, 0.1, 0.1]),
        (Exponential(0.4, 0.5), [0.4, 0.2, 0.1]),
        (Inverse(0.6), [0.6, 0.3, 0.2]),
        (Step(0.4, 0.5, every=2), [0.4, 0.4, 0.2]),
        (Cosine(0.4, rounds=2, end=0.2), [0.4, 0.3, 0.2]),
    ],
    ids=lambda case: str(case),
)
def test_values_by_finished_rounds(schedule: Any, values: list[float]) -> None:
    assert [schedule(done) for done in range(3)] == pytest.approx(values)


def test_a_cosine_stays_at_its_end() -> None:
    assert Cosine(1.0, rounds=3, end=0.1)(50) == pytest.approx(0.1)


def test_a_number_a_table_and_a_function_are_schedules() -> None:
    assert of(0.1, path="client_lr")(7) == 0.1
    assert of({"kind": "step", "start": 1.0, "decay": 0.1, "every": 10}, path="client_lr")(10) == pytest.approx(0.1)
    assert of(lambda done: 1.0 / (done + 2), path="client_lr")(0) == 0.5


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"kind": "cosin", "start": 1.0}, "lr.kind", "did you mean 'cosine'"),
        ({"kind": "step", "start": 1.0}, "lr", "does not take this"),
        ({"kind": "step", "start": 1.0, "decay": 0.5, "every": 0}, "lr", "has no value"),
        (0.0, "lr", "finite and positive"),
        (float("nan"), "lr", "finite and positive"),
        (lambda done: None, "lr", "has no value"),
    ],
)
def test_what_is_no_schedule_is_named(spec: Any, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        of(spec, path="lr")
    assert caught.value.path == path
