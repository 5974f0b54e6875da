"""A model measured at each site, and the trio: alone, together, pooled."""

from __future__ import annotations

import numpy as np
import pytest

import hansa as hs
from hansa.adapters.numpy import softmax
from hansa.core.protocols import FederatedData
from hansa.data.federated import from_arrays, pool
from hansa.learning import fedavg, fedper, local_only
from hansa.testing.fakes import rows

SITES = {name: rows(60, seed=seed) for seed, name in enumerate(("north", "south", "west"))}


def federated() -> FederatedData:
    return from_arrays({name: (r.x, r.y) for name, r in SITES.items()}, split=(0.5, 0.2, 0.3), seed=1)


def job(**options: object) -> hs.Job:
    return hs.Job("trio", fedavg(softmax(classes=2, features=4, lr=0.5), rounds=3, **options), data="rows")  # type: ignore[arg-type]


def test_each_site_and_all_rows_together_are_measured_on_the_test_part() -> None:
    data = federated()
    result = hs.simulate(job(), data, seed=3)
    found = hs.evaluate(job(), result.model, data)
    sizes = [len(data.load(slot).part("test")) for slot in range(3)]
    values = [found.sites[site]["accuracy"] for site in data.sites]
    assert found.pooled["accuracy"] == pytest.approx(np.average(values, weights=sizes))


def test_training_alone_in_the_trio_is_training_on_one_sites_rows() -> None:
    data = federated()
    compared = hs.compare(job(), data, seed=3)
    alone = hs.simulate(job(), from_arrays({"south": data.load(1)}), seed=3)
    south = hs.evaluate(job(), alone.model, from_arrays({"south": data.load(1)}))
    assert compared.local["south"]["accuracy"] == south.sites["south"]["accuracy"]


def test_the_pooled_model_of_the_trio_is_trained_on_the_pooled_rows() -> None:
    data = federated()
    compared = hs.compare(job(), data, seed=3)
    central = hs.simulate(job(), pool(data), seed=3)
    assert hs.evaluate(job(), central.model, data).sites == compared.centralised.sites


def test_a_cohort_and_a_quorum_do_not_keep_a_single_place_from_training() -> None:
    table = hs.compare(job(cohort=2, quorum=2), federated(), seed=3).table("accuracy")
    assert [site for site, *_ in table] == ["north", "south", "west"]
    assert all(0 <= value <= 1 for _, *values in table for value in values)


def test_personal_layers_are_measured_with_what_each_site_kept() -> None:
    data = federated()
    personal = hs.Job("own", fedper(softmax(classes=2, features=4, lr=0.5), rounds=3, personal=["bias"]), data="rows")
    result = hs.simulate(personal, data, seed=3)
    kept = hs.evaluate(personal, result.model, data, memory=result.memory, seed=3)
    fresh = hs.evaluate(personal, result.model, data, seed=3)
    assert kept.sites["north"]["loss"] != fresh.sites["north"]["loss"]


def test_a_workflow_without_a_model_is_refused() -> None:
    nothing = hs.Job("nothing", lambda federation: None, data="rows")
    with pytest.raises(hs.errors.ConfigError, match="trains no model"):
        hs.evaluate(nothing, {}, federated())


def test_local_only_equals_the_trios_local_models_without_a_statistics_round() -> None:
    data = federated()
    own = hs.Job("own", local_only(softmax(classes=2, features=4, lr=0.5), rounds=3), data="rows")
    result = hs.simulate(own, data, seed=3)
    assert set(result.memory) == {0, 1, 2}
