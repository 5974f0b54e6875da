"""What simulated sites are given, and what becomes of what they give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.unit.simulation.means import Means, job, sites

import hansa as hs
from hansa.core.round import Policy
from hansa.core.run import run
from hansa.core.task import FLContext, Shareable, Signal, Task
from hansa.data.federated import from_arrays
from hansa.errors import DataError
from hansa.learning.fedavg import fedavg
from hansa.simulation.engine import simulate
from hansa.simulation.evaluate import compare

ENGINES: list[dict[str, Any]] = [{}, {"workers": 2}, {"workers": 2, "start": "spawn"}, {"engine": "vectorised"}]


def pairs(images: Any, labels: Any) -> np.float64:
    return np.float64(images.x[0, 0] + 10 * labels.x[0, 0])


def asked(computation: Any) -> Any:
    class Once:
        computations = (computation,)

        def __call__(self, federation: Any) -> Any:
            return run(computation, federation).result

    return Once()


@hs.federated_computation
def total(images: hs.Clients[object], labels: hs.Clients[object]) -> hs.Server[float]:
    return hs.federated_sum(hs.federated_map(pairs, (images, labels)))


@hs.federated_computation
def mistyped(images: hs.Clients[object], labls: hs.Clients[object]) -> hs.Server[float]:
    return hs.federated_sum(hs.federated_map(pairs, (images, labls)))


def test_each_label_leads_to_its_own_data_set() -> None:
    both = {"images": sites(1, 2), "labels": sites(3, 4)}
    assert float(simulate(hs.Job("both", asked(total), data="images"), both).value) == (1 + 30) + (2 + 40)


def test_a_label_that_is_no_data_set_is_named_before_anything_runs() -> None:
    both = {"images": sites(1, 2), "labels": sites(3, 4)}
    with pytest.raises(DataError, match=r"no such data set; at path labls; expected images, labels \(did you mean 'labels'\?\)"):
        simulate(hs.Job("both", asked(mistyped), data="images"), both)


def test_a_lone_data_set_and_the_word_data_mean_the_jobs_own() -> None:
    assert float(simulate(hs.Job("both", asked(total), data="rows"), sites(1)).value) == 11
    own = hs.Job("means", job().workflow, data="images")
    assert simulate(own, {"images": sites(0, 1), "labels": sites(2, 3)}).metrics[0]["sites"].keys() == {"a", "b"}


def test_data_sets_with_other_sites_and_names_that_come_twice_are_refused() -> None:
    with pytest.raises(DataError, match=r"path labels; expected 2 sites, as 'data' has; got 1 sites|path labels; expected 2, as"):
        simulate(job(), {"data": sites(0, 1), "labels": sites(0)})

    class Twice:
        sites = ("a", "b", "a")

        def load(self, slot: int) -> Any:
            raise AssertionError("nothing is loaded")

    with pytest.raises(DataError, match=r"two sites have one name; .*got 'a'"):
        simulate(job(), Twice())


@pytest.mark.parametrize("options", ENGINES, ids=["loop", "forked pool", "spawned pool", "vectorised"])
def test_a_site_cannot_write_to_its_rows(options: dict[str, Any]) -> None:
    class Greedy(Means):
        def fit(self, model: Any, data: Any, config: Any, *, rng: Any, abort: Any) -> Any:
            if data.x[0, 0] == 1:
                data.part("train").y[:] = 7
            return super().fit(model, data, config, rng=rng, abort=abort)

    data = sites(0, 1)
    result = simulate(hs.Job("greedy", fedavg(Greedy(), rounds=1, evaluate_sites="none")), data, **options)
    assert "read-only" in result.metrics[0]["refused"][0]["message"]
    assert data.load(1).y.flags.writeable
    assert not data.load(1).y.any()


def test_a_reply_cannot_be_written_to_and_so_not_the_sites_own_array() -> None:
    class Gives(hs.Executor):
        def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
            return Shareable({"mine": mine})

    def writes(federation: Any) -> None:
        for reply in federation.task(Task("give"), [0], Policy()):
            reply.shareable.body["mine"][:] = 7

    mine = np.zeros(2)
    with pytest.raises(ValueError, match="read-only"):
        simulate(hs.Job("writes", writes, executor=Gives()), sites(0))
    assert mine.tolist() == [0, 0]
    assert mine.flags.writeable


def test_the_trio_of_a_job_with_two_data_sets_pairs_each_site_with_its_own() -> None:
    x, y = np.ones((4, 1), np.float32), np.zeros(4)
    data = {"data": sites(0, 1), "more": from_arrays({"a": (x, y), "b": (x, y)})}
    compared = compare(hs.Job("means", fedavg(Means(), rounds=1)), data)
    assert set(compared.local) == {"a", "b"}
