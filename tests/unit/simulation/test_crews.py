"""Vectorised clients, when one of them is at fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tests.unit.simulation.means import Means, job, raising, sites

import hansa as hs
from hansa.adapters.numpy import softmax
from hansa.core import trees
from hansa.core.protocols import Update
from hansa.core.task import FLContext, Shareable
from hansa.core.workflow import Workflow
from hansa.data.federated import population
from hansa.errors import ConfigError
from hansa.learning.fedavg import fedavg
from hansa.learning.scaffold import scaffold
from hansa.simulation.engine import simulate
from hansa.testing.fakes import rows


class Picky:
    """A filter that refuses what one site sends."""

    def __init__(self, site: str, error: Exception) -> None:
        self.site, self.error = site, error

    def __call__(self, shareable: Shareable, ctx: FLContext) -> Shareable:
        if ctx.site == self.site:
            raise self.error
        return shareable


@pytest.mark.parametrize(
    "workflow",
    [
        scaffold(softmax(classes=2, features=4), rounds=1, metrics=[]),
        fedavg(softmax(classes=2, features=4), rounds=1, metrics=[], personal=["bias"]),
    ],
    ids=["scaffold", "personal layers"],
)
def test_a_neighbour_that_fails_leaves_what_the_others_keep_as_in_the_loop(workflow: Workflow) -> None:
    data = population(4, lambda slot: rows(12, seed=slot))
    picky = hs.Job("picky", workflow, filters=[Picky("site-001", ValueError("no"))])
    loop, together = (simulate(picky, data, seed=1, engine=engine) for engine in ("loop", "vectorised"))
    assert sorted(loop.memory) == sorted(together.memory) == [0, 2, 3]
    for slot, kept in loop.memory.items():
        here, there = trees.flatten(kept), trees.flatten(together.memory[slot])
        for path, leaf in here.items():
            np.testing.assert_allclose(there[path], leaf, rtol=1e-5, atol=1e-6)


def test_a_sites_own_config_error_is_its_own_as_in_the_loop() -> None:
    for changes, filters in (({}, [Picky("b", ConfigError("mine"))]), ({1: raising(ConfigError("mine"))}, [])):
        one = hs.Job("own", job(changes).workflow, filters=filters)
        for engine in ("loop", "vectorised"):
            [refused] = simulate(one, sites(0, 1, 2), engine=engine).metrics[0]["refused"]
            assert (refused["site"], refused["code"], refused["message"]) == ("b", "config", "mine")


@pytest.mark.parametrize("alone", [True, False], ids=["even of one client", "of several"])
def test_a_batched_form_that_refuses_what_a_client_can_do_alone_ends_the_run(alone: bool) -> None:
    class Unlike(Means):
        def fit_many(self, models: Sequence[Any], datasets: Sequence[Any], configs: Any, *, rngs: Any) -> list[Update]:
            if alone or len(models) > 1:
                raise ConfigError("these cannot be batched", hint="use the loop")
            return super().fit_many(models, datasets, configs, rngs=rngs)

    with pytest.raises(ConfigError, match="these cannot be batched"):
        simulate(hs.Job("unlike", fedavg(Unlike(), rounds=1)), sites(0, 1, 2), engine="vectorised")
