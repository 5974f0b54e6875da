"""One simulated round, followed hop by hop: DESIGN section 3, kept true."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import hansa
from hansa import Job, simulate
from hansa.adapters.numpy import softmax
from hansa.aggregation.filters import clip
from hansa.data.federated import population
from hansa.learning.fedavg import fedavg
from hansa.testing.fakes import rows

SRC = str(Path(hansa.__file__).parent)
# Hop by hop, as (module, function). 4 and 5, the wire, are the deployment's.
HOPS = {
    "1 the workflow samples the cohort": ("learning/rounds.py", "_train"),
    "2 the plan is run": ("core/run.py", "run"),
    "3 one task for each site": ("simulation/federation.py", "task"),
    "6 a task's name leads to a function": ("core/executor.py", "execute"),
    "7 local training": ("adapters/numpy/learner.py", "fit"),
    "8 filters at the site": ("aggregation/filters.py", "__call__"),
    "9 the gate": ("core/gate.py", "admit"),
    "9 the weighted add": ("aggregation/mean.py", "add"),
    "10 the new state at the server": ("learning/fedavg.py", "add_mean"),
}


@dataclass
class Trace:
    """The calls into hansa in the order they were made, and the stack of hansa's frames at the first weighted add."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    at_add: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(SRC):
            here = named(frame)
            self.calls.append(here)
            if here == HOPS["9 the weighted add"] and not self.at_add:
                self.at_add = list(stack(frame))


def named(frame: FrameType) -> tuple[str, str]:
    return str(Path(frame.f_code.co_filename).relative_to(SRC)), frame.f_code.co_name


def stack(frame: FrameType) -> Iterator[tuple[str, str]]:
    """hansa's frames from this one out to the user's call."""
    at: FrameType | None = frame
    while at is not None:
        if at.f_code.co_filename.startswith(SRC):
            yield named(at)
        at = at.f_back


@contextmanager
def traced() -> Iterator[Trace]:
    trace, before = Trace(), sys.getprofile()
    sys.setprofile(trace)
    try:
        yield trace
    finally:
        sys.setprofile(before)


def one_round() -> Trace:
    job = Job("walk", fedavg(softmax(classes=2, features=4), rounds=1, cohort=2), filters=[clip(1.0)])
    data = population(3, lambda slot: rows(8, seed=slot, valid=2))
    with traced() as trace:
        simulate(job, data, seed=0)
    return trace


def test_a_round_takes_the_hops_of_the_design_in_their_order() -> None:
    calls = one_round().calls
    start = 0
    for hop, call in HOPS.items():
        assert call in calls[start:], f"hop {hop}: {call} was not called after the hop before it"
        start = calls.index(call, start)


def test_the_weighted_add_is_at_most_seven_calls_below_the_users() -> None:
    frames = one_round().at_add
    assert frames[-1] == ("simulation/engine.py", "simulate")
    assert len(frames) - 1 <= 7, "\n".join(f"{module}:{name}" for module, name in frames)
