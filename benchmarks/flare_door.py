"""W9, the door for apps of NVIDIA FLARE: two apps alone, and the same training as an app and as a job of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.flare_sites import start, trained
from benchmarks.measure import Cost, Figure, Stopwatch, alternate, middle, ratio, shown
from hansa.compat.flare.job import Sites, job
from hansa.core import trees
from hansa.core.job import Job
from hansa.core.protocols import Dataset, Evaluation, FitConfig, Update
from hansa.core.task import Signal
from hansa.core.trees import Array, Tree
from hansa.data import datasets, partition
from hansa.data.federated import FederatedRows
from hansa.learning import fedavg
from hansa.simulation.engine import simulate

HELLO = Path(__file__).parents[1] / "examples" / "flare" / "hello-numpy-sag"
MODELS = {"1 MB": 1000, "8 MB": 7500}  # hidden units
CUSTOM = """
import numpy as np
from benchmarks.flare_sites import start, trained
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.executor import Executor
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.abstract.model_persistor import ModelPersistor


class Trains(Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        return DXO(DataKind.WEIGHT_DIFF, trained(from_shareable(shareable).data)).to_shareable()


class Answers(Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        weights = from_shareable(shareable).data
        return DXO(DataKind.WEIGHT_DIFF, {name: np.ones_like(value) for name, value in weights.items()}).to_shareable()


class Starts(ModelPersistor):
    def __init__(self, hidden):
        super().__init__()
        self.hidden = hidden

    def load_model(self, fl_ctx):
        return make_model_learnable(start(self.hidden), {})

    def save_model(self, model, fl_ctx):
        pass
"""


class Native:
    """A learner of ours that trains as the app does."""

    metrics = ()

    def __init__(self, hidden: int) -> None:
        self._hidden = hidden

    def init(self, rng: np.random.Generator) -> Tree:
        """The weights to begin with."""
        del rng
        return trees.unflatten(dict[str, Array](start(self._hidden)))

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        """The change of the weights."""
        del data, config, rng, abort
        return Update(trained(dict(trees.leaves(model))), 1, 1, 0.0, 0.0)

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        """Nothing is looked at."""
        del model, data
        return Evaluation(np.zeros(0), 0.0)

    def predict(self, model: Tree, x: Array) -> Array:
        """The same."""
        del model
        return x


def run(*, small: bool) -> list[Figure]:
    """The figures of the workload."""
    torch.set_num_threads(1)
    repeats, rounds, sites = (2, 2, 2) if small else (3, 3, 8)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        figures = [*_hello(root, repeats=repeats), _many(root, *((10, 2) if small else (100, 20)), repeats=min(repeats, 3))]
        for size, hidden in MODELS.items():
            app = _app(root / size, "door.Trains", {"hidden": hidden, "rounds": rounds})
            jobs = {"app": (job(app), Sites.of(sites)), "native": (_native(hidden, rounds), _shards(sites))}
            models: dict[str, Tree] = {}
            works = {name: partial(_trained, models, name, *each) for name, each in jobs.items()}
            for work in works.values():  # the first call of a kernel is dearer
                work()
            costs = alternate(works, repeats=repeats)
            if not _close(models["app"], models["native"]):
                raise RuntimeError("the app and the native job have trained different models")
            parts = {name: [cost / (rounds * sites) for cost in each] for name, each in costs.items()}
            details = {"a site and round": shown(parts), "sites": sites, "rounds": rounds}
            title = f"the same training as an app, {size}"
            figures.append(
                Figure("W9", title, ratio(costs["app"], costs["native"]), "x CPU of baseline", "fedavg", 1.2, "<=", details)
            )
            more = 1e3 * (middle(parts["app"]).cpu_s - middle(parts["native"]).cpu_s)
            figures.append(Figure("W9", f"more a site and round, {size}", more, "CPU ms", "fedavg"))
    return figures


def _hello(root: Path, *, repeats: int) -> list[Figure]:
    """From the command to its exit; the first run, which compiles, is not counted."""
    # Compiled modules are kept, as in any installation, whatever this process was told about writing them.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env = {**kept, "PYTHONPYCACHEPREFIX": str(root / "compiled")}
    costs = []
    for number in range(repeats + 1):
        watch = Stopwatch()
        hansa = str(Path(sys.executable).with_name("hansa"))
        command = [sys.executable, hansa, "run", "--flare", str(HELLO), "--sites", "2", "--out", str(root / f"hello {number}")]
        subprocess.run(command, check=True, capture_output=True, env=env)
        costs.append(watch.cost())
    cost = middle(costs[1:])
    title = "hello-numpy-sag, from command to exit"
    return [
        Figure("W9", title, cost.wall_s, "s", "nvflare 2.9.0: 21 s", 2.0, "<=", {"runs": shown({"hello": costs[1:]})}),
        Figure("W9", "the same, CPU", cost.cpu_s, "CPU s", ""),
    ]


def _many(root: Path, sites: int, rounds: int, *, repeats: int) -> Figure:
    """Rounds of a task that does next to nothing."""
    app = _app(root / "many", "door.Answers", {"hidden": 1, "rounds": rounds})
    costs = [_trained({}, "", job(app), Sites.of(sites)) for _ in range(repeats)]
    details = {"runs": shown({"many": costs})}
    return Figure("W9", f"{sites} sites x {rounds} rounds of a no-op", middle(costs).wall_s, "s", "none", 5.0, "<=", details)


def _app(folder: Path, executor: str, variables: Mapping[str, Any]) -> Path:
    """An app that starts from `start(hidden)`, and adds up what the executor sends."""
    server = {
        **variables,
        "format_version": 2,
        "components": [
            {"id": "persistor", "path": "door.Starts", "args": {"hidden": "{hidden}"}},
            {"id": "shareable_generator", "name": "FullModelShareableGenerator"},
            {"id": "aggregator", "name": "InTimeAccumulateWeightedAggregator"},
        ],
        "workflows": [{"id": "train", "name": "ScatterAndGather", "args": {"min_clients": 2, "num_rounds": "{rounds}"}}],
    }
    client = {"format_version": 2, "executors": [{"tasks": ["train"], "executor": {"path": executor}}]}
    for name in ("config", "custom"):
        (folder / name).mkdir(parents=True)
    (folder / "custom" / "door.py").write_text(CUSTOM, encoding="utf-8")
    for side, document in (("server", server), ("client", client)):
        (folder / "config" / f"config_fed_{side}.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def _native(hidden: int, rounds: int) -> Job:
    return Job("native", fedavg(Native(hidden), rounds=rounds, weighting="uniform", evaluate_sites="none"), data="rows")


def _shards(sites: int) -> FederatedRows:
    """As many sites; what they have is not looked at."""
    return partition.iid(datasets.digits(), sites=sites, seed=0)


def _trained(models: dict[str, Tree], name: str, made: Job, data: Any) -> Cost:
    watch = Stopwatch()
    result = simulate(made, data, seed=0)
    models[name] = result.model
    return watch.cost()


def _close(one: Tree, other: Tree) -> bool:
    """Whether two models are one, but for rounding."""
    pairs = zip(trees.leaves(one), trees.leaves(other), strict=True)
    return all(path == name and np.allclose(a, b, rtol=1e-4, atol=1e-5) for (path, a), (name, b) in pairs)
