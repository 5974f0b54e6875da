"""Workflows in a row: what goes over from one to the next, and what a resumed run remembers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.learning.linear import A, B, Linear, Loss, flat

from hansa import codec
from hansa.core.job import Job
from hansa.core.protocols import Federation
from hansa.data.federated import FederatedRows
from hansa.errors import ConfigError, Interrupted, RunError
from hansa.learning import cross_site, cyclic, fedavg
from hansa.learning.sequence import Sequence
from hansa.simulation.engine import simulate

DATA = FederatedRows(["a", "b"], lambda slot: [A, B][slot])


def test_a_training_goes_on_from_the_model_of_the_one_before_and_rounds_are_counted_through() -> None:
    first = cyclic(Linear(), rounds=2, metrics=[Loss()], client_lr=0.01)
    second = fedavg(Linear(), rounds=1, metrics=[Loss()], client_lr=0.01)
    result = simulate(Job("s", Sequence(first, second)), DATA)
    start = simulate(Job("s", first), DATA).model
    alone = simulate(Job("s", fedavg(Linear(), rounds=1, metrics=[Loss()], client_lr=0.01, init=start)), DATA).model
    assert flat(result.model) == flat(alone)
    assert [record["round"] for record in result.metrics] == [1, 2, 3]
    assert len(result.value) == 2
    assert flat(result.value[0].model) == flat(start)


def test_an_init_of_its_own_wins() -> None:
    init = {"w": np.array([1.0, 1.0]), "b": np.array(0.0)}
    own = fedavg(Linear(), rounds=1, metrics=[Loss()], init=init)
    result = simulate(Job("s", Sequence(cyclic(Linear(), rounds=1, metrics=[Loss()]), own)), DATA)
    assert flat(result.model) == flat(simulate(Job("s", own), DATA).model)


def test_tasks_of_one_name_are_told_apart_in_the_plan() -> None:
    made = fedavg(Linear(), rounds=1, metrics=[Loss()])
    job = Job("s", Sequence(made, made))
    names = [stage.task for plan in job.plans for stage in plan.stages]
    assert names == [
        "local_train", "evaluate_valid", "evaluate_test", "local_train@2", "evaluate_valid@2", "evaluate_test@2"
    ]  # fmt: skip
    assert ", then fedavg, 1 rounds" in job.describe()


class Cut:
    """A workflow that is cut off the first time."""

    computations = ()

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __call__(self, federation: Federation) -> str:
        federation.restore()
        if not self.flag.exists():
            self.flag.touch()
            raise KeyboardInterrupt
        federation.checkpoint(1, {}, {"said": "yes"})
        federation.report({"round": 1})
        return "done"


def test_a_run_that_is_cut_off_in_a_later_step_does_not_repeat_the_earlier_ones(tmp_path: Path) -> None:
    trained: list[int] = []

    class Counting(Linear):
        def fit(self, *args: Any, **more: Any) -> Any:
            trained.append(1)
            return Linear.fit(self, *args, **more)

    def job(flag: str) -> Job:
        first = cyclic(Counting(), rounds=2, metrics=[Loss()], client_lr=0.01)
        last = fedavg(Counting(), rounds=2, metrics=[Loss()], client_lr=0.01)
        return Job("s", Sequence(first, Cut(tmp_path / flag), last))

    (tmp_path / "never").touch()
    whole = simulate(job("never"), DATA, out=tmp_path / "whole")
    trained.clear()
    with pytest.raises(Interrupted):
        simulate(job("once"), DATA, out=tmp_path / "r")
    assert len(trained) == 4
    resumed = simulate(job("once"), DATA, out=tmp_path / "r", resume=True)
    assert len(trained) == 8
    assert codec.digest(resumed.model) == codec.digest(whole.model)
    assert codec.digest(resumed.value[0].model) == codec.digest(whole.value[0].model)
    assert [record["round"] for record in resumed.metrics] == [1, 2, 3, 4, 5]
    assert (tmp_path / "r" / "result.json").read_text() == '"done"\n'


def test_a_step_without_checkpoints_comes_last(tmp_path: Path) -> None:
    def nothing(federation: Federation) -> int:
        return len(federation.sites)

    made = fedavg(Linear(), rounds=1, metrics=[Loss()])
    assert simulate(Job("s", Sequence(made, nothing)), DATA, out=tmp_path / "r").value[1] == 2
    with pytest.raises(RunError, match="step 1 of the sequence makes no checkpoints"):
        simulate(Job("s", Sequence(nothing, made)), DATA)


def test_a_sequence_that_kept_its_updates_is_verified(tmp_path: Path) -> None:
    from hansa.record.folder import RunFolder
    from hansa.simulation.verify import verify

    first = cyclic(Linear(), rounds=2, metrics=[Loss()], client_lr=0.01)
    second = fedavg(Linear(), rounds=2, metrics=[Loss()], client_lr=0.01, keep_local=True)
    made = Sequence(first, second, cross_site(Linear(), local=True, part="train", metrics=[Loss()]))
    simulate(Job("s", made), DATA, out=tmp_path / "r", keep_updates=True)
    report = verify(RunFolder.open(tmp_path / "r"), Job("s", made), DATA.sites)
    assert report.ok
    assert [name for name, *_ in report.rounds] == [1, 2, 3, 4, "model.safetensors"]


def test_what_is_no_workflow_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Sequence(fedavg(Linear(), rounds=1, metrics=[Loss()]), 3)  # type: ignore[arg-type]
    assert caught.value.path == "steps[1]"
    with pytest.raises(ConfigError):
        Sequence()
