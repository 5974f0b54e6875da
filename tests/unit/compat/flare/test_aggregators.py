from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hansa.compat.flare.apis.dxo import DXO, DataKind, from_shareable
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable, make_reply
from hansa.compat.flare.app_common.abstract.model import ModelLearnableKey, make_model_learnable
from hansa.compat.flare.app_common.aggregators.accumulate_model_aggregator import AccumulateWeightedAggregator
from hansa.compat.flare.app_common.aggregators.intime_accumulate_model_aggregator import InTimeAccumulateWeightedAggregator
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.shareablegenerators.full_model_shareable_generator import FullModelShareableGenerator
from hansa.compat.flare.place import peer_context


def context(site: str, number: int = 2) -> FLContext:
    ctx = FLContext()
    ctx.put(AppConstants.CURRENT_ROUND, number)
    ctx.set_peer_context(peer_context({"__identity_name__": site}))
    return ctx


def contribution(data: dict[str, Any], number: int = 2, kind: str = DataKind.WEIGHT_DIFF, **meta: Any) -> Shareable:
    made = DXO(kind, data, meta).to_shareable()
    made.set_header(AppConstants.CONTRIBUTION_ROUND, number)
    return made


@pytest.mark.parametrize("kind", [InTimeAccumulateWeightedAggregator, AccumulateWeightedAggregator])
def test_the_mean_has_the_weights_of_sites_times_their_steps(kind: type[InTimeAccumulateWeightedAggregator]) -> None:
    aggregator = kind(exclude_vars="^head", aggregation_weights={"a": 3.0})
    for site, value, steps in (("a", [1.0, 2.0], 1), ("b", [5.0, 6.0], 2)):
        given = {"w": np.array(value, np.float32), "head": np.zeros(1)}
        assert aggregator.accept(contribution(given, NUM_STEPS_CURRENT_ROUND=steps), context(site))
    got = from_shareable(aggregator.aggregate(context("server"))).data
    assert (list(got), got["w"].tolist(), got["w"].dtype) == (["w"], [pytest.approx(13 / 5), pytest.approx(18 / 5)], np.float32)
    assert from_shareable(aggregator.aggregate(context("server"))).data == {}


def test_what_cannot_be_added_is_refused_and_leaves_the_mean_as_it_was() -> None:
    aggregator = InTimeAccumulateWeightedAggregator()
    assert aggregator.accept(contribution({"w": np.ones(2)}), context("a"))
    refused = [
        ("a", contribution({"w": np.ones(2)})),  # again
        ("b", contribution({"w": np.ones(2)}, number=1)),  # late
        ("c", contribution({"w": np.ones(2)}, kind=DataKind.WEIGHTS)),
        ("d", contribution({"w": np.array([1.0, np.nan])})),
        ("e", contribution({"w": np.ones(3)})),
        ("f", contribution({"w": np.ones(2)}, PROCESSED_ALGORITHM="HE")),
        ("g", contribution({"w": np.ones(2)}, NUM_STEPS_CURRENT_ROUND=-1)),
        ("h", contribution({})),
        ("i", make_reply("EXECUTION_EXCEPTION")),
    ]
    assert [site for site, each in refused if aggregator.accept(each, context(site))] == []
    assert from_shareable(aggregator.aggregate(context("server"))).data["w"].tolist() == [1.0, 1.0]


def test_a_collection_is_added_whole_or_not_at_all() -> None:
    aggregator = InTimeAccumulateWeightedAggregator(expected_data_kind={"m": "WEIGHT_DIFF", "c": "WEIGHT_DIFF"})

    def both(m: float, c: Any) -> Shareable:
        parts = {"m": DXO(DataKind.WEIGHT_DIFF, {"w": np.array([m])}), "c": DXO(DataKind.WEIGHT_DIFF, {"w": c})}
        return contribution(parts, kind=DataKind.COLLECTION)

    assert aggregator.accept(both(1.0, np.array([4.0])), context("a"))
    assert not aggregator.accept(both(9.0, np.array([np.inf])), context("b"))
    assert not aggregator.accept(contribution({"m": 3}, kind=DataKind.COLLECTION), context("c"))
    assert aggregator.accept(both(3.0, np.array([6.0])), context("d"))
    got = from_shareable(aggregator.aggregate(context("server"))).data
    assert (got["m"].data["w"].tolist(), got["c"].data["w"].tolist()) == ([2.0], [5.0])


def test_adding_up_at_the_end_does_not_depend_on_the_order_of_arrival() -> None:
    rng = np.random.default_rng(0)
    sent = {f"s{n}": rng.standard_normal(50) * 10.0**n for n in range(8)}
    results = []
    for order in (list(sent), list(reversed(sent))):
        aggregator = AccumulateWeightedAggregator()
        for site in order:
            aggregator.accept(contribution({"w": sent[site]}), context(site))
        results.append(from_shareable(aggregator.aggregate(context("server"))).data["w"].tobytes())
    assert results[0] == results[1]


def test_the_full_model_adds_differences_and_takes_weights_and_keeps_what_did_not_come() -> None:
    generator, ctx = FullModelShareableGenerator(), FLContext()
    base = {"w": np.array([1.0, 2.0], np.float32), "n": np.array(3), "kept": np.array([7.0])}
    ctx.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(dict(base), {}))
    diff = contribution({"w": np.array([0.5, 0.5]), "other": np.ones(1)}, initial_metrics=0.5)
    model = generator.shareable_to_learnable(diff, ctx)
    weights = model[ModelLearnableKey.WEIGHTS]
    assert (weights["w"].tolist(), weights["w"].dtype, sorted(weights)) == ([1.5, 2.5], np.float32, ["kept", "n", "w"])
    assert base["w"].tolist() == [1.0, 2.0]
    model = generator.shareable_to_learnable(contribution({"w": np.zeros(2)}, kind=DataKind.WEIGHTS), ctx)
    assert (model["weights"]["w"].tolist(), model["weights"]["kept"].tolist()) == ([0.0, 0.0], [7.0])
    assert from_shareable(generator.learnable_to_shareable(model, ctx)).data_kind == "WEIGHTS"
    with pytest.raises(ValueError, match="no weights"):
        generator.shareable_to_learnable(contribution({}, kind=DataKind.METRICS), ctx)
