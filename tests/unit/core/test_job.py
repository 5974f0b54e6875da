"""Jobs: names, the text and hash of what will run, and who serves a task."""

from typing import Any

import pytest

from hansa.aggregation.filters import Clip
from hansa.core.computation import federated_computation
from hansa.core.executor import Executor
from hansa.core.intrinsics import federated_map, federated_sum
from hansa.core.job import Job
from hansa.core.protocols import Federation
from hansa.core.task import FLContext, Shareable, Signal
from hansa.core.types import Clients, Server
from hansa.errors import ConfigError


def rows_of(x: float) -> float:
    return 1.0


@federated_computation
def total(x: Clients[float]) -> Server[float]:
    return federated_sum(federated_map(rows_of, x))


class Counting:
    """A workflow of one computation."""

    computations = (total,)
    about = "counts rows"

    def __call__(self, federation: Federation) -> int:
        return len(federation.sites)


class Echo(Executor):
    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        return Shareable(metrics={"echo": 1.0})


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "x" * 64, "ä"])
def test_a_name_that_could_not_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="not a job name"):
        Job(name, Counting())


def test_a_workflow_has_to_be_callable() -> None:
    with pytest.raises(ConfigError, match="called with a federation; at path workflow"):
        Job("a", 3)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"name": 3}, "name"),
        ({"data": None}, "data"),
        ({"data": ""}, "data"),
        ({"filters": len}, "filters"),
        ({"filters": ["clip"]}, "filters"),
        ({"executor": "x"}, "executor"),
        ({"requires": "torch"}, "requires"),
        ({"include": [3]}, "include"),
        ({"filters": [Clip(1.0)]}, "filters[0].path"),
    ],
)
def test_what_no_job_can_be_made_of_is_named(options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Job(**{"name": "a", "workflow": Counting(), **options})
    assert caught.value.path == path


def test_a_filter_may_look_at_all_of_a_reply_and_at_what_only_an_executor_knows() -> None:
    assert Job("a", Counting(), filters=[Clip(1.0, path="")]).filters
    assert Job("a", Counting(), filters=[Clip(1.0)], executor=Echo()).filters


def test_the_description_says_what_runs_and_which_filters_stand_at_a_site() -> None:
    text = Job("a", Counting(), data="heart", filters=[Named()]).describe().splitlines()
    assert text[0] == "job a on 'heart': counts rows"
    assert "stage 1: task 'rows_of'" in text
    assert text[-1] == "filter at each site: Named"


class Named:
    def __call__(self, shareable: Shareable, ctx: FLContext) -> Shareable:
        return shareable

    def __repr__(self) -> str:
        return "Named"


class Unnamed:
    def __call__(self, shareable: Shareable, ctx: FLContext) -> Shareable:
        return shareable


def test_the_hash_is_of_what_runs_and_not_of_where_it_lies_in_memory() -> None:
    first, second = (Job("a", Counting(), filters=[Unnamed()]) for _ in range(2))
    assert first.hash == second.hash
    assert first.hash != Job("b", Counting()).hash


def test_tasks_of_computations_go_to_their_functions_and_all_others_to_the_jobs_executor() -> None:
    served = Job("a", Counting(), executor=Echo()).serve()
    ctx = FLContext(load=lambda _: 2.0)
    assert list(served.execute("rows_of", Shareable(), ctx, Signal()).body) == ["rows_of"]
    assert served.execute("anything", Shareable(), ctx, Signal()).metrics == {"echo": 1.0}


def test_a_workflow_without_computations_serves_its_own_tasks() -> None:
    def workflow(federation: Federation) -> Any:
        return None

    job = Job("a", workflow, executor=Echo())
    assert job.plans == []
    assert job.describe() == f"job a on 'data': function\nexecutor at each site: {__name__}:Echo"
