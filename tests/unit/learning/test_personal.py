"""Layers that stay at a site: FedPer and local-only, with every body that crossed looked at."""

from typing import Any

import numpy as np
import pytest
from tests.unit.learning.linear import A, B, Linear, Loss, Recorded, flat, models, site

from hansa.core import trees
from hansa.core.rng import generator
from hansa.core.task import Signal
from hansa.core.trees import Tree
from hansa.data.rows import Rows
from hansa.errors import ConfigError, RunError
from hansa.learning.fedavg import fedavg
from hansa.learning.fedper import fedper
from hansa.learning.local_only import local_only
from hansa.learning.templates import Setup
from hansa.testing.fakes import ConstantLearner, rows

# Only b stays: x = 1, so that w is shared and b takes up the rest.
SITES = [site(([1.0], 2.0)), site(([1.0], 4.0))]


def test_the_shared_leaf_moves_by_the_mean_and_the_personal_one_at_each_site_by_hand() -> None:
    f = Recorded(SITES, fedper(Linear(1), rounds=2, personal=["b"], metrics=[Loss()]))
    outcome = f.run()
    # Round 1 from 0: the gradient of both leaves is -2 t; w_i = b_i = 0.2 t = 0.4, 0.8, so w = 0.6.
    # Round 2: errors 0.6 + 0.4 - 2 = -1 and 0.6 + 0.8 - 4 = -2.6: both leaves move by 0.2 and 0.52, so w = 0.6 + 0.36.
    assert np.asarray(outcome.model["w"]) == pytest.approx([0.96])
    assert [float(f.memory[slot].kept["personal"]["b"]) for slot in (0, 1)] == pytest.approx([0.6, 1.32])  # type: ignore[arg-type]
    assert np.asarray(outcome.model["b"]) == 0.0


def test_no_personal_leaf_is_in_any_body_down_or_up() -> None:
    f = Recorded(SITES, fedper(Linear(1), rounds=3, personal=["b"], metrics=[Loss()]))
    f.run()
    bodies = [body for _, body in f.sent] + [reply.body for _, _, reply in f.came]
    leaves = [path for body in bodies for path, _ in trees.leaves(body)]
    assert len(bodies) == 3 * 2 * (1 + 2)
    assert any(path.endswith("/w") for path in leaves)
    assert not any(path.endswith("/b") or path == "b" for path in leaves)


def test_metrics_are_those_of_the_shared_model_with_the_sites_own_layers() -> None:
    split = [Rows(np.ones((2, 1)), np.full(2, t), parts=np.array([0, 1], np.int8)) for t in (2.0, 4.0)]
    f = Recorded(split, fedper(Linear(1), rounds=1, personal=["b"], metrics=[Loss()]))
    f.run()
    (record,) = f.records
    # w = 0.6 after the round, b = 0.4 and 0.8: errors 1.0 - 2 and 1.4 - 4.
    assert record["sites"]["s0"]["loss"] == pytest.approx(1.0)
    assert record["sites"]["s1"]["loss"] == pytest.approx(2.6**2)
    assert record["global"]["loss"] == pytest.approx((1.0 + 2.6**2) / 2)


def test_sites_start_personal_layers_from_the_values_that_the_server_has() -> None:
    class Drawn(ConstantLearner):
        def init(self, rng: np.random.Generator) -> dict[str, Any]:
            return {"body": rng.normal(size=1), "head": rng.normal(size=1)}

    delta = {"body": np.ones(1), "head": np.full(1, 0.5)}
    f = Recorded([rows(3), rows(3)], fedper(Drawn(delta), rounds=1, personal=["head"], metrics=[]), seed=9)
    outcome = f.run()
    start = Drawn(delta).init(generator(9, purpose="init"))
    assert outcome.model["head"] == start["head"]
    for slot in (0, 1):
        assert f.memory[slot].kept["personal"]["head"] == start["head"] + 0.5


def test_a_starting_model_reaches_the_personal_layers_of_the_sites() -> None:
    init = {"w": np.array([1.0]), "b": np.array(3.0)}
    f = Recorded(SITES, fedper(Linear(1), rounds=1, personal=["b"], metrics=[], init=init))
    f.run()
    assert float(f.memory[0].kept["personal"]["b"]) == pytest.approx(3.0 - 0.2 * 2.0)  # type: ignore[arg-type]  # error 1 + 3 - 2


def test_a_starting_model_given_to_a_finished_job_is_refused_when_its_personal_layers_cannot_reach_the_sites() -> None:
    import dataclasses

    job = fedper(Linear(1), rounds=1, personal=["b"], metrics=[])
    late = dataclasses.replace(job, init={"w": np.array([1.0]), "b": np.array(3.0)})
    with pytest.raises(ConfigError, match=r"path init/b.*give init= to the algorithm"):
        Recorded(SITES, late).run()
    dataclasses.replace(job, init={"w": np.array([1.0]), "b": np.array(0.0)})


def test_local_only_is_each_site_training_alone_bit_for_bit() -> None:
    data = [rows(12, d=3, seed=k) for k in range(3)]
    targets = [Rows(d.x, d.y.astype(np.float64)) for d in data]
    f = Recorded(targets, local_only(Linear(3, lr=0.05, batch=5), rounds=4, metrics=[Loss()], client_lr=0.03))
    outcome = f.run()
    for slot, own in enumerate(targets):
        alone: Tree = Linear(3).init(generator(0))
        for _ in range(4):
            config = Setup.of(Linear(3), {"client_lr": 0.03}).fit_config(0)
            update = Linear(3, lr=0.05, batch=5).fit(alone, own, config, rng=generator(0), abort=Signal())
            alone = trees.add(alone, update.delta)
        assert trees.equal(f.memory[slot].kept["personal"], alone)
    assert flat(dict(outcome.model)) == [0.0, 0.0, 0.0, 0.0]


def test_local_only_sends_row_counts_and_metrics_alone() -> None:
    f = Recorded([A, B], local_only(Linear(), rounds=2, metrics=[Loss()]))
    f.run()
    assert [dict(reply.body) for name, _, reply in f.came if name == "local_train"] == [
        {"weight": np.array(n)} for n in (2, 1, 2, 1)
    ]
    assert all(not list(trees.leaves(body.get("shared", {}))) for _, body in f.sent)  # type: ignore[arg-type]


def test_one_site_alone_and_fedavg_of_one_site_are_the_same_bits() -> None:
    alone = Recorded([A], local_only(Linear(), rounds=3, metrics=[]))
    alone.run()
    assert trees.equal(alone.memory[0].kept["personal"], models(fedavg(Linear(), rounds=3, metrics=[]), [A], 3)[-1])


def test_local_only_scales_by_the_sites_own_rows() -> None:
    data = [site(([0.0], 1.0), ([2.0], 2.0)), site(([10.0], 1.0), ([30.0], 2.0))]
    f = Recorded(data, local_only(Linear(1), rounds=1, standardise=True, metrics=[Loss()]))
    f.run()
    kept: list[Any] = [f.memory[slot].kept["personal"] for slot in (0, 1)]
    assert [float(k["x.mean"][0]) for k in kept] == [1.0, 20.0]
    assert [float(k["x.scale"][0]) for k in kept] == [1.0, 10.0]
    assert not any("moments" in name for name, _ in f.sent)


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ({"personal": "head.*"}, "personal", "list of path patterns"),
        ({"personal": []}, "personal", "needs the layers"),
        ({"personal": ["b"], "test": A}, "test", "no whole model"),
    ],
)
def test_what_cannot_be_personal_is_named(options: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        fedper(Linear(), rounds=1, metrics=[], **options)
    assert caught.value.path == path


def test_a_pattern_that_matches_no_layer_is_named_with_the_layers_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no layer matches; at path personal\[1\].*'w', 'b'"):
        fedper(Linear(), rounds=1, metrics=[], personal=["b", "heads.*"]).process.initialize()


def test_when_nothing_is_shared_local_only_is_named() -> None:
    with pytest.raises(ConfigError, match="use local_only"):
        fedper(Linear(), rounds=1, metrics=[], personal=["*"]).process.initialize()


def test_local_only_takes_no_personal_patterns_and_no_aggregator() -> None:
    with pytest.raises(ConfigError, match="never takes 'personal'"):
        local_only(Linear(), rounds=1, personal=["b"])


def test_where_sites_have_no_memory_the_error_says_so() -> None:
    process = fedper(Linear(), rounds=1, metrics=[], personal=["b"]).process
    with pytest.raises(RunError, match="no site memory"):
        process.next(process.initialize(), [A])
