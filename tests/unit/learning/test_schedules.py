"""Schedules: values by hand, and what a job file may write."""

from typing import Any

import pytest
from tests.unit.learning.linear import Linear, Loss

from hansa.errors import ConfigError
from hansa.learning.fedavg import fedavg
from hansa.learning.scaffold import scaffold
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
        ({"kind": "step", "start": 1.0, "decay": 0.5, "every": 0}, "lr.every", "number of rounds"),
        ({"kind": "exponential", "start": 1.0, "decay": -0.5}, "lr.decay", "finite and positive"),
        ({"kind": "cosine", "start": 1.0, "rounds": 2.5}, "lr.rounds", "number of rounds"),
        ({"kind": "cosine", "start": 1.0, "rounds": 2, "end": -0.1}, "lr.end", "finite and positive"),
        ("0.1", "lr", "finite and positive"),
        (True, "lr", "finite and positive"),
        (0.0, "lr", "finite and positive"),
        (float("nan"), "lr", "finite and positive"),
        (lambda done: None, "lr", "has no value"),
    ],
)
def test_what_is_no_schedule_is_named(spec: Any, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        of(spec, path="lr")
    assert caught.value.path == path


def test_a_value_is_checked_when_it_is_used() -> None:
    falling = of(lambda done: 0.2 - 0.1 * done, path="client_lr")
    assert falling(1) == pytest.approx(0.1)
    with pytest.raises(ConfigError, match=r"got -0\.1\d* in round 4"):
        falling(3)


def test_all_rounds_of_a_job_are_tried_before_it_starts() -> None:
    ends_at_zero = {"kind": "cosine", "start": 0.1, "rounds": 3}
    fedavg(Linear(), rounds=3, client_lr=ends_at_zero, server_lr=ends_at_zero, metrics=[Loss()])
    for name in ("client_lr", "server_lr"):
        with pytest.raises(ConfigError, match=r"got 0\.0 in round 4") as caught:
            scaffold(Linear(), rounds=4, metrics=[Loss()], **{name: ends_at_zero})  # type: ignore[arg-type]  # one of two options
        assert caught.value.path == name


def test_a_checked_schedule_prints_as_what_it_checks() -> None:
    assert repr(of(0.1, path="client_lr")) == "Constant(value=0.1)"
