"""One job, three engines: the same bits in loop and pool, nearly the same with vectorised clients, and memory that stays."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hansa as hs
from hansa import codec
from hansa.adapters.numpy import mlp, softmax
from hansa.core import trees
from hansa.core.trees import Tree
from hansa.data.federated import FederatedRows, population
from hansa.learning.fedavg import fedavg
from hansa.learning.fedper import fedper
from hansa.learning.rounds import Rounds
from hansa.learning.scaffold import scaffold
from hansa.simulation.engine import Result
from hansa.simulation.faults import Faults
from hansa.testing.fakes import rows

FAULTS = Faults(dropout=0.15, straggle=0.2, spread=0.5, bad=0.15)
POOLS: list[dict[str, Any]] = [{"engine": "pool", "workers": 1}, {"workers": 2}, {"workers": 3}, {"workers": 2, "start": "spawn"}]


def numpy_jobs() -> dict[str, Rounds]:
    linear = softmax(classes=3, features=4)
    return {
        "fedavg": fedavg(linear, rounds=3, cohort=6, over_select=0.3, deadline_s=8.0),
        "scaffold": scaffold(linear, rounds=3, cohort=6),
        "fedper": fedper(mlp((6,), classes=3, features=4), rounds=3, cohort=6, personal=["1.*"]),
    }


def torch_job() -> Rounds:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from hansa.adapters.torch import TorchLearner

    def net() -> Any:
        return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))

    return fedavg(TorchLearner(net, loss=torch.nn.functional.cross_entropy, lr=0.1, batch=8), rounds=2, cohort=6)


JOBS: dict[str, Callable[[], Rounds]] = {
    **{name: lambda name=name: numpy_jobs()[name] for name in ("fedavg", "scaffold", "fedper")},  # type: ignore[misc]
    "torch": torch_job,
}


def sites() -> FederatedRows:
    return population(12, lambda slot: rows(16 + 3 * slot, classes=3, seed=slot, valid=4, test=2))


def run(workflow: Rounds, faults: Faults | None = None, **options: Any) -> Result:
    return hs.simulate(hs.Job("job", workflow), sites(), seed=7, faults=faults, **options)


def told(result: Result) -> list[dict[str, Any]]:
    """The metrics without the wall clock."""
    return [{name: value for name, value in record.items() if name != "seconds"} for record in result.metrics]


def kept(result: Result) -> dict[int, str]:
    """What the sites keep, as a digest each."""
    return {slot: codec.digest(names) for slot, names in sorted(result.memory.items())}


@pytest.mark.parametrize("faults", [None, FAULTS], ids=["calm", "faulty"])
@pytest.mark.parametrize("name", JOBS)
def test_loop_and_pool_give_the_same_bits_for_any_number_of_workers(name: str, faults: Faults | None) -> None:
    workflow = JOBS[name]()
    loop = run(workflow, faults)
    for options in POOLS:
        pool = run(workflow, faults, **options)
        assert codec.digest(pool.model) == codec.digest(loop.model), options
        assert codec.digest(pool.best) == codec.digest(loop.best), options
        assert told(pool) == told(loop), options
        assert kept(pool) == kept(loop), options


def furthest(one: Tree, other: Tree) -> float:
    """The largest difference of two models, relative to the size of each leaf."""
    pairs = [
        (np.asarray(a), np.asarray(b)) for a, b in zip(trees.flatten(one).values(), trees.flatten(other).values(), strict=True)
    ]
    return max(
        float(np.max(np.abs(a - b)) / max(np.max(np.abs(a)), 1e-30)) for a, b in pairs
    )  # what stays at sites stays zero here


@pytest.mark.parametrize("faults", [None, FAULTS], ids=["calm", "faulty"])
@pytest.mark.parametrize("name", JOBS)
def test_vectorised_clients_are_stable_and_equal_the_loop_to_five_digits(name: str, faults: Faults | None) -> None:
    workflow = JOBS[name]()
    loop, one, again = run(workflow, faults), *(run(workflow, faults, engine="vectorised") for _ in range(2))
    assert codec.digest(one.model) == codec.digest(again.model)
    assert told(one) == told(again)
    assert furthest(loop.model, one.model) <= 1e-5
    for ours, theirs in zip(told(loop), told(one), strict=True):
        assert (ours["refused"], ours["lost"]) == (theirs["refused"], theirs["lost"])
        assert theirs["global"] == pytest.approx(ours["global"], rel=1e-4)


def test_hansa_run_with_one_and_two_workers_writes_the_same_model_file(tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        'name = "digits"\nseed = 7\n[data]\nsource = "digits"\n[partition]\nkind = "dirichlet"\nsites = 10\nalpha = 0.3\n'
        '[learner]\nkind = "numpy.softmax"\nlr = 0.1\n[algorithm]\nname = "fedavg"\nrounds = 2\ncohort = 4\n'
    )
    found = set()
    for workers in ("1", "2"):
        out = tmp_path / workers
        command = [sys.executable, "-m", "hansa.cli", "run", str(job), "--workers", workers, "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        found.add(hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest())
        assert json.loads((out / "run.json").read_text())["engine"] == {"1": "loop", "2": "pool"}[workers]
    assert len(found) == 1


def test_torchs_streams_and_threads_are_left_alone_and_a_pool_works_after_torch_has_computed_here() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.manual_seed(11)
    (torch.ones(400, 400) @ torch.ones(400, 400)).sum()  # starts torch's threads in the process that workers are forked from
    before = (torch.get_rng_state(), torch.get_num_threads())
    workflow = torch_job()
    models = {codec.digest(run(workflow).model), codec.digest(run(workflow, workers=2).model)}
    run(workflow, engine="vectorised")
    assert len(models) == 1
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


MEMORY = """if True:
    import resource, sys
    import numpy as np
    import hansa as hs
    from hansa.data.federated import population
    from hansa.learning.fedavg import fedavg
    from hansa.testing.fakes import ConstantLearner, rows

    cohort, workers = map(int, sys.argv[1:])
    learner = ConstantLearner({"w": np.ones((5, 1_000_000), np.float32)})  # 20 MB
    job = hs.Job("wide", fedavg(learner, rounds=2, cohort=cohort, evaluate_sites="none"))
    hs.simulate(job, population(40, lambda slot: rows(2, seed=slot)), workers=workers)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_the_memory_of_a_round_does_not_grow_with_the_cohort(workers: int) -> None:
    peaks = []
    for cohort in (4, 12):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(cohort), str(workers)], capture_output=True, text=True, timeout=60, check=True
        )
        peaks.append(int(done.stdout))
    # Eight more updates of 20 MB would add 160 MB to some 200 MB.
    assert peaks[1] < 1.1 * peaks[0] + 20_000, peaks


INTERACTIVE = """
import numpy as np
import hansa as hs
from hansa.adapters.numpy import softmax
from hansa import codec
from hansa.core.task import Shareable, Task
from hansa.core.round import Policy
from hansa.data.federated import population
from hansa.learning.fedavg import fedavg
from hansa.testing.fakes import rows

class Squares(hs.Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        return Shareable({"n": np.array(helper(fl_ctx.slot))})

def helper(n): return n * n

def ask(federation): return [int(r.shareable.body["n"]) for r in federation.task(Task("square"), range(4), Policy())]

def load(slot): return rows(12, seed=slot, valid=3)

data = population(4, load)
squares = hs.Job("squares", ask, executor=Squares())
job = hs.Job("job", fedavg(softmax(classes=2, features=4), rounds=2))

for options in ({}, {"workers": 2}, {"workers": 2, "start": "spawn"}):
    print(hs.simulate(squares, data, **options).value, codec.digest(hs.simulate(job, data, **options).model))

"""


@pytest.mark.parametrize("how", [["-"], ["-i"], ["-c", INTERACTIVE]], ids=["a script on stdin", "interactive", "a string"])
def test_a_job_defined_in_an_interpreter_without_a_file_runs_in_every_engine(how: list[str]) -> None:
    text = "" if how[0] == "-c" else INTERACTIVE
    done = subprocess.run([sys.executable, *how], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert len(set(lines)) == 1
    assert lines[0].startswith("[0, 1, 4, 9]")
