"""Jobs that come to grief where they are told to: `python doomed.py JOB FOLDER`, once more with RESUME=1 to go on.

DOOM="signal:round:slot" sends a signal to the process that runs the federation (or, as "group", to its whole group, as Ctrl-C
does) when that site replies in that round. WORKERS is the size of the pool. PIDS is a file to which every process that
serves a site adds its id.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

import hansa as hs
from hansa.adapters.numpy import mlp, softmax
from hansa.core.round import Policy
from hansa.core.task import FLContext, Shareable, Signal, Task
from hansa.data.federated import population
from hansa.errors import HansaError
from hansa.learning.fedavg import fedavg
from hansa.learning.fedper import fedper
from hansa.learning.scaffold import scaffold
from hansa.testing.fakes import rows

MAIN = os.getpid()
data = population(6, lambda slot: rows(16 + slot, classes=3, seed=slot, valid=4))


class Doom:
    """A filter that passes every reply on, unless the end has come. It prints alike in every process: the plan is hashed."""

    def __call__(self, shareable: Shareable, ctx: FLContext) -> Shareable:
        if pids := os.environ.get("PIDS"):
            with Path(pids).open("a") as file:
                file.write(f"{os.getpid()}\n")
        how, _, where = os.environ.get("DOOM", "").partition(":")
        if where == f"{ctx.round}:{ctx.slot}":
            if how == "group":
                os.killpg(os.getpgrp(), signal.SIGINT)
            else:
                os.kill(MAIN, signal.Signals[how])
        return shareable

    def __repr__(self) -> str:
        return "Doom()"


class Tally(hs.Executor):
    """Counts in its memory how often it was asked, and answers with it and what it was sent."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        assert fl_ctx.memory is not None
        asked = np.asarray((fl_ctx.memory.get("asked") or {"n": np.array(0)})["n"]) + 1
        fl_ctx.memory.put("asked", {"n": asked})
        drawn = fl_ctx.rng("tally").standard_normal(3)
        return Shareable({"w": np.asarray(shareable.body["w"]) + drawn * asked})


def tally(federation: Any) -> list[float]:
    """A workflow without checkpoints: four rounds, each on what the one before gave."""
    w = np.zeros(3)
    for number in range(1, 5):
        replies = federation.task(Task("tally", Shareable({"w": w}), round=number), range(len(federation.sites)), Policy())
        w = np.mean([reply.shareable.body["w"] for reply in replies], axis=0)
        federation.report({"round": number, "global": {"w": w[0]}})
    return [float(value) for value in w]


linear = softmax(classes=3, features=4)
jobs = {
    "fedavg": hs.Job("fedavg", fedavg(linear, rounds=4, cohort=4), filters=[Doom()]),
    "scaffold": hs.Job("scaffold", scaffold(linear, rounds=4, cohort=4), filters=[Doom()]),
    "fedper": hs.Job("fedper", fedper(mlp((5,), classes=3, features=4), rounds=4, cohort=4, personal=["1.*"]), filters=[Doom()]),
    "tally": hs.Job("tally", tally, executor=Tally(), filters=[Doom()]),
}
job = jobs["fedavg"]

if __name__ == "__main__":
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  # drawing curves takes longer than the run
    options = json.loads(os.environ.get("OPTIONS", "{}"))
    workers = int(os.environ.get("WORKERS", "1"))
    try:
        result = hs.simulate(
            jobs[sys.argv[1]],
            data,
            out=sys.argv[2],
            resume="RESUME" in os.environ,
            seed=3,
            workers=workers,
            progress="plain",
            **options,
        )
    except HansaError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    sys.stdout.write(json.dumps(result.value if sys.argv[1] == "tally" else "done"))
