"""Computations of one's own over readings of three stations, as jobs."""

from typing import Any

import numpy as np

import hansa as hs

STATIONS = ["cleveland", "hungarian", "switzerland"]
VALUES = [[68.5, 70.0], [70.3], [69.8, 71.2, 66.1]]
DATA = hs.FederatedType(hs.SequenceType(np.float32), hs.CLIENTS)
STATE = hs.FederatedType([("mean", np.float32), ("rounds", np.int32)], hs.SERVER)


class Readings:
    sites = STATIONS

    def load(self, slot: int) -> Any:
        return [np.float32(value) for value in VALUES[slot]]


data = {"readings": Readings()}


def mean_of(readings: Any) -> np.float32:
    return np.float32(np.mean(readings))


def length(readings: Any) -> np.float32:
    return np.float32(len(readings))


@hs.federated_computation(DATA)
def average_temperature(readings: Any) -> Any:
    return hs.federated_mean(hs.federated_map(mean_of, readings), weight=hs.federated_map(length, readings))


def apart(state: Any, readings: Any) -> np.float32:
    return np.float32(np.mean((np.asarray(readings) - state["mean"]) ** 2))


def nearer(state: Any, moved: np.float32) -> Any:
    return {"mean": np.float32(0.9 * state["mean"] + 0.1 * moved), "rounds": state["rounds"] + 1}


@hs.federated_computation(STATE, DATA)
def step(state: Any, readings: Any) -> Any:
    """Two stages: the mean of all first, then how far each is from the state."""
    after = hs.federated_map(nearer, (state, average_temperature(readings)))
    variance = hs.federated_mean(hs.federated_map(apart, (hs.federated_broadcast(after), readings)))
    return after, hs.federated_zip({"variance": variance})


def values_of(readings: Any) -> Any:
    return np.asarray(readings)


def count(readings: Any) -> np.int32:
    return np.int32(len(readings))


@hs.federated_computation(DATA)
def secret(readings: Any) -> Any:
    return hs.federated_secure_sum_bitwidth(hs.federated_map(count, readings), 8)


job = hs.Job("nearer", hs.iterate(step, init={"mean": 60.0, "rounds": 0}, rounds=3), data="readings")
collected = hs.Job("values", hs.once(values_of), data="readings")
