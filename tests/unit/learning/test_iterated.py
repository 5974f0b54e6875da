"""A computation of one's own, round after round; and one that is a job as it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hansa as hs
from hansa.errors import ConfigError, TraceError
from hansa.templates import IterativeProcess


class Readings:
    """Three sites with some temperatures each."""

    sites = ("a", "b", "c")

    def load(self, slot: int) -> Any:
        return [np.float32(v) for v in ([68.5, 70.0], [70.3], [69.8, 71.2, 66.0])[slot]]


READINGS = Readings()
DATA = hs.FederatedType(hs.SequenceType(np.float32), hs.CLIENTS)


@hs.local_computation
def cold() -> np.float32:
    return np.float32(0)


def moved(state: np.float32, data: Any) -> np.float32:
    return np.float32(state + 0.5 * (np.mean(data) - state))


def rows(data: Any) -> np.int32:
    return np.int32(len(data))


@hs.federated_computation(hs.FederatedType(np.float32, hs.SERVER), DATA)
def step(state: Any, data: Any) -> Any:
    weight = hs.federated_map(rows, data)
    return hs.federated_mean(hs.federated_map(moved, (hs.federated_broadcast(state), data)), weight=weight)


@hs.federated_computation(hs.FederatedType(np.float32, hs.SERVER), DATA)
def measured(state: Any, data: Any) -> Any:
    weight = hs.federated_map(rows, data)
    total = hs.federated_sum(weight)
    after = hs.federated_mean(hs.federated_map(moved, (hs.federated_broadcast(state), data)), weight=weight)
    return after, hs.federated_zip({"rows": total, "twice": hs.federated_map(lambda n: 2 * n, total)})


def by_hand(rounds: int) -> Any:
    state = np.float32(0)
    for _ in range(rounds):
        state = step(state, [READINGS.load(slot) for slot in range(3)])
    return state


def test_rounds_of_a_computation_give_what_calling_it_gives(tmp_path: Path) -> None:
    job = hs.Job("warmer", hs.iterate(step, init=0.0, rounds=4), data="readings")
    result = hs.simulate(job, READINGS, out=tmp_path / "run")
    assert result.value.state == by_hand(4)
    assert result.model["value"] == by_hand(4)
    assert hs.load_model(tmp_path / "run")["value"].tobytes() == np.asarray(by_hand(4)).tobytes()
    assert [line["round"] for line in result.metrics] == [1, 2, 3, 4]


def test_what_a_round_measures_is_its_metrics_and_the_last_of_it_the_result(tmp_path: Path) -> None:
    workflow = hs.iterate(IterativeProcess(*started(measured)), rounds=2)
    result = hs.simulate(hs.Job("warmer", workflow, data="readings"), READINGS, out=tmp_path / "run")
    outcome, last = result.value
    assert (outcome.state, last) == (by_hand(2), {"rows": 6, "twice": 12})
    assert [line["global"] for line in result.metrics] == [{"rows": 6.0, "twice": 12.0}] * 2
    assert json.loads((tmp_path / "run" / "result.json").read_bytes()) == {"rows": 6, "twice": 12}


def started(step: Any) -> tuple[Any, Any]:
    @hs.federated_computation
    def initialize() -> Any:
        return hs.federated_eval(cold, hs.SERVER)

    return initialize, step


class Failing(Readings):
    """The readings, which somebody interrupts in the round of that number."""

    def __init__(self, at: int) -> None:
        self.left = at * 3

    def load(self, slot: int) -> Any:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().load(slot)


@pytest.mark.parametrize("chosen", [step, measured])
def test_a_run_that_was_cut_off_goes_on_to_the_same_state(chosen: Any, tmp_path: Path) -> None:
    job = hs.Job("w", hs.iterate(chosen, init=0.0, rounds=3))
    whole = hs.simulate(job, READINGS, out=tmp_path / "whole")
    with pytest.raises(hs.errors.Interrupted):
        hs.simulate(job, Failing(2), out=tmp_path / "cut")
    again = hs.simulate(job, READINGS, out=tmp_path / "cut", resume=True)
    assert repr(again.value) == repr(whole.value)
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_a_cohort_is_drawn_anew_each_round_by_the_seed() -> None:
    job = hs.Job("few", hs.iterate(measured, init=0.0, rounds=5, cohort=1))
    one, same, other = (hs.simulate(job, READINGS, seed=seed).metrics for seed in (1, 1, 2))
    asked = [[line["global"]["rows"] for line in each] for each in (one, same, other)]
    assert asked[0] == asked[1] != asked[2]
    assert len(set(asked[0])) > 1


@pytest.mark.parametrize(
    ("kinds", "body", "words"),
    [
        ((DATA,), lambda data: hs.federated_sum(hs.federated_map(rows, data)), "is no round"),
        ((hs.FederatedType(np.int32, hs.SERVER),) * 2, lambda state, data: state, "is no round"),
        (
            (hs.FederatedType(np.float32, hs.SERVER), DATA),
            lambda state, data: hs.federated_sum(hs.federated_map(rows, data)),
            "does not give a state that it takes",
        ),
    ],
)
def test_what_is_no_round_is_said_with_both_types(kinds: Any, body: Any, words: str) -> None:
    with pytest.raises(TraceError, match=words) as caught:
        hs.iterate(hs.federated_computation(body, *kinds), init=0, rounds=1)
    assert caught.value.expected is not None
    assert caught.value.got is not None


def test_a_first_state_is_needed_and_has_the_states_type() -> None:
    with pytest.raises(ConfigError, match="no first state"):
        hs.iterate(step, rounds=1)
    with pytest.raises(TraceError, match=r"at path init; expected float32; got <local computation cold .*call it"):
        hs.iterate(step, init=cold, rounds=1)
    with pytest.raises(TraceError, match="init"):
        hs.iterate(step, init=[1.0, 2.0], rounds=1)
    with pytest.raises(ConfigError, match="at least one round"):
        hs.iterate(step, init=0.0, rounds=0)
    with pytest.raises(TraceError, match="a round is a federated computation"):
        hs.iterate(cold, init=0.0, rounds=1)  # type: ignore[arg-type]  # the point of the test


@hs.federated_computation(DATA)
def patients(data: Any) -> Any:
    return hs.federated_sum(hs.federated_map(rows, data))


def over(data: Any, threshold: np.float32) -> np.int32:
    return np.int32(sum(value > threshold for value in data))


@hs.federated_computation(hs.FederatedType(np.float32, hs.SERVER), DATA)
def above(threshold: Any, data: Any) -> Any:
    return hs.federated_sum(hs.federated_map(over, (data, hs.federated_broadcast(threshold))))


def test_a_computation_is_a_job_as_it_is() -> None:
    job = hs.Job("patients", patients, data="readings")
    assert hs.simulate(job, READINGS).value == patients([READINGS.load(slot) for slot in range(3)]) == 6
    assert job.hash == hs.Job("patients", hs.once(patients), data="readings").hash


def test_a_computations_server_arguments_are_given_with_it_and_shown_by_their_hash() -> None:
    job = hs.Job("fever", hs.once(above, given={"threshold": 69.9}))
    assert hs.simulate(job, READINGS).value == 3
    assert job.hash != hs.Job("fever", hs.once(above, given={"threshold": 69.8})).hash
    with pytest.raises(ConfigError, match=r"not the server's arguments.*iterate"):
        hs.Job("fever", above)
    with pytest.raises(ConfigError, match="not the server's arguments"):
        hs.once(above, given={"threshold": 1.0, "limit": 2.0})
    with pytest.raises(TraceError, match="threshold"):
        hs.once(above, given={"threshold": "high"})


def test_a_computation_without_types_cannot_be_a_job() -> None:
    @hs.federated_computation
    def anything(x: Any) -> Any:
        return hs.federated_sum(x)

    with pytest.raises(ConfigError, match="without types cannot travel"):
        hs.Job("any", anything)


def test_a_step_of_a_sequence_counts_its_rounds_with_the_others(tmp_path: Path) -> None:
    both = hs.Sequence(hs.iterate(step, init=0.0, rounds=2), hs.iterate(measured, init=1.0, rounds=1), hs.once(patients))
    result = hs.simulate(hs.Job("all", both), READINGS)
    assert [line["round"] for line in result.metrics] == [1, 2, 3, 4]
    assert result.value[2] == 6
