"""What every algorithm takes: options checked early, weights, metrics of the model after the round, stopping, the best model."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.unit.learning.linear import A, B, Linear, Loss, Recorded, flat, models, site

from hansa.adapters.numpy import logistic
from hansa.aggregation.exact import ExactMean, FixedPoint
from hansa.aggregators import MeanFactory
from hansa.core.job import Job
from hansa.core.protocols import BatchLearner, Dataset
from hansa.core.rng import generator
from hansa.core.task import FLContext, Signal
from hansa.core.trees import Tree
from hansa.data.federated import population
from hansa.data.rows import Rows
from hansa.errors import ConfigError, DataError, SpecError, WeightError
from hansa.learning.fedavg import fedavg
from hansa.learning.fedopt import fedopt
from hansa.learning.fedprox import fedprox
from hansa.learning.fedsgd import fedsgd
from hansa.learning.local_only import local_only
from hansa.learning.rounds import Rounds
from hansa.learning.scaffold import scaffold
from hansa.learning.templates import Setup
from hansa.simulation.engine import simulate
from hansa.testing.fakes import ConstantLearner, InMemorySiteMemory, rows

Algorithm = Callable[..., Rounds]


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ({"epoch": 2}, "epoch", "did you mean 'epochs'"),
        ({"sever_lr": 2}, "sever_lr", "did you mean 'server_lr'"),
        ({"epochs": 0}, "epochs", "at least 1"),
        ({"steps": 1.5}, "steps", "whole number"),
        ({"batch": -1}, "batch", "at least 0"),
        ({"clip": 0.0}, "clip", "> 0"),
        ({"client_lr": -1.0}, "client_lr", "positive"),
        ({"client_lr": {"kind": "inverce", "start": 1.0}}, "client_lr.kind", "did you mean 'inverse'"),
        ({"server_lr": 0.0}, "server_lr", "positive"),
        ({"weighting": "rows"}, "weighting", "examples or uniform"),
        ({"weight_cap": 0}, "weight_cap", "> 0"),
        ({"aggregator": object()}, "aggregator", "not an Aggregator"),
        (
            {"aggregator": MeanFactory},
            "aggregator",
            "or an UnweightedAggregationFactory; got <class 'hansa.aggregators.means.MeanFactory'>",
        ),
        ({"metrics": ["accuracee"]}, "metrics[0]", "did you mean 'accuracy'"),
        ({"metrics": [Loss(), Loss()]}, "metrics[1]", "named twice"),
        ({"monitor": "auc", "metrics": [Loss()]}, "monitor", "not a metric of this job"),
        ({"patience": 0}, "patience", "at least 1"),
        ({"evaluate_every": 0}, "evaluate_every", "at least 1"),
        ({"cohort": 0}, "cohort", "at least 1"),
        ({"quorum": 0.0}, "quorum", "share"),
        ({"rounds": 0}, "rounds", "at least 1"),
        ({"test": 3}, "test", "not a data set"),
        ({"init": [1.0]}, "init", "not a model"),
        ({"rounds": "3"}, "rounds", "at least 1"),
        ({"rounds": 2.5}, "rounds", "at least 1"),
        ({"server_lr": "0.1"}, "server_lr", "positive"),
        ({"personal": 3}, "personal", "list of path patterns"),
        ({"personal": "b"}, "personal", "list of path patterns"),
        ({"patience": 1.5}, "patience", "at least 1"),
        ({"evaluate_every": 1.5}, "evaluate_every", "at least 1"),
        ({"standardise": "no"}, "standardise", "yes or no"),
        ({"metrics": "accuracy"}, "metrics", "metrics is a list"),
        ({"metrics": [3]}, "metrics[0]", "not a metric"),
        ({"epochs": 3, "steps": 2}, "steps", "epochs or steps"),
        ({"patience": 2, "evaluate_sites": "none", "metrics": [Loss()]}, "patience", "nobody evaluates"),
    ],
)
def test_a_wrong_option_is_named_when_the_algorithm_is_made(options: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        fedavg(Linear(), **{"rounds": 1, **options})
    assert caught.value.path == path


TEXT: Any = "x"
WRONG: list[tuple[Callable[[], Rounds], str]] = [
    (lambda: fedprox(Linear(), rounds=1, mu=-1.0), "mu"),
    (lambda: fedprox(Linear(), rounds=1, mu=TEXT), "mu"),
    (lambda: fedopt(Linear(), rounds=1, momentum=TEXT), "momentum"),
    (lambda: fedopt(Linear(), rounds=1, betas=(0.9,)), "betas"),  # type: ignore[arg-type]  # the point of the test
]


@pytest.mark.parametrize(("made", "path"), WRONG)
def test_an_algorithms_own_setting_is_named(made: Callable[[], Rounds], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made()
    assert caught.value.path == path


def test_what_is_no_learner_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match="not a Learner: it has no init"):
        fedavg(object(), rounds=1)  # type: ignore[arg-type]  # the point of the test


def test_a_plan_prints_what_is_set_and_nothing_else() -> None:
    job = fedavg(logistic(features=2), rounds=3, cohort=5, clip=1.0, client_lr=0.2)
    learner = "numpy.logistic(features=2, lr=0.1, epochs=1, batch=32)"
    assert job.about == f"fedavg, 3 rounds, cohort=5, {learner}, clip=1.0, client_lr=Constant(value=0.2)"
    assert Setup.of(logistic(features=2), {}).about == "numpy.logistic(features=2, lr=0.1, epochs=1, batch=32)"


def test_weights_are_row_counts_or_one() -> None:
    assert Setup.of(Linear(), {}).weight(7) == 7
    assert Setup.of(Linear(), {"weighting": "uniform"}).weight(7) == 1


def test_a_site_that_claims_more_than_the_cap_is_refused() -> None:
    with pytest.raises(WeightError, match="<= 1"):
        Recorded([A, B], fedavg(Linear(), rounds=1, weight_cap=1, metrics=[])).run()


def test_an_exact_aggregator_gives_the_mean_and_prints_in_the_plan() -> None:
    exact = ExactMean(FixedPoint(bound=8.0, weight=8.0, count=100))
    job = fedavg(Linear(), rounds=1, metrics=[], aggregator=exact)
    assert flat(models(job, [A, B], 1)[0]) == pytest.approx([-1.4, -1.2, 0.2], abs=1e-9)


def test_the_server_step_scales_the_mean_change() -> None:
    assert flat(models(fedavg(Linear(), rounds=1, metrics=[], server_lr=0.5), [A, B], 1)[0]) == pytest.approx([-0.7, -0.6, 0.1])


def test_gradients_are_clipped_at_the_client() -> None:
    (model,) = models(fedavg(Linear(), rounds=1, metrics=[], clip=6**0.5), [site(([1.0, 2.0], 1.0))], 1)
    assert flat(model) == pytest.approx([0.1, 0.2, 0.1])  # the gradient is (-2, -4, -2), of norm 2 sqrt 6: halved


def test_local_epochs_and_steps_replace_the_learners() -> None:
    one = site(([0.0], 1.0))  # each step halves the distance at lr 0.25
    for options, left in (({"epochs": 3}, 0.125), ({"steps": 2}, 0.25)):
        (model,) = models(fedavg(Linear(1, lr=0.25), rounds=1, metrics=[], **options), [one], 1)  # type: ignore[arg-type]
        assert 1 - flat(model)[1] == pytest.approx(left)


def split_site(target: float) -> Rows:
    return Rows(np.zeros((2, 1)), np.array([target, 0.0]), parts=np.array([0, 1], np.int8))


def test_a_rounds_metrics_are_those_of_the_model_after_it() -> None:
    f = Recorded([split_site(8.0)], fedavg(Linear(1, lr=0.25), rounds=3, metrics=[Loss()]))
    f.run()
    # b goes 0, 4, 6, 7 to the training target; the validation target is 0.
    assert [record["global"]["loss"] for record in f.records] == pytest.approx([16.0, 36.0, 49.0])
    assert [record["global"]["train_loss"] for record in f.records] == pytest.approx([64.0, 16.0, 4.0])


def test_the_best_model_is_the_one_with_the_best_metric_and_patience_stops() -> None:
    f = Recorded([split_site(8.0)], fedavg(Linear(1, lr=0.25), rounds=30, metrics=[Loss()], patience=2))
    outcome = f.run()
    assert (outcome.best_round, outcome.rounds) == (1, 3)  # the validation loss only grows: two rounds without a better one
    assert flat(dict(outcome.best)) == pytest.approx([0.0, 4.0])
    assert flat(dict(outcome.model)) == pytest.approx([0.0, 7.0])


def test_evaluation_can_be_rarer_but_always_sees_the_last_round() -> None:
    f = Recorded([split_site(8.0)], fedavg(Linear(1, lr=0.25), rounds=5, metrics=[Loss()], evaluate_every=2))
    f.run()
    assert ["loss" in record["global"] for record in f.records] == [False, True, False, True, True]


def test_without_metrics_there_are_none_and_the_last_model_counts() -> None:
    f = Recorded([split_site(8.0)], fedavg(Linear(1), rounds=2, metrics=[]))
    f.run()
    assert [set(record["global"]) for record in f.records] == [{"train_loss"}] * 2


def test_data_at_the_server_are_scored_and_can_choose_the_best_model() -> None:
    held = site(([0.0], 4.0))
    job = fedavg(Linear(1, lr=0.25), rounds=3, metrics=[Loss()], evaluate_sites="none", test=lambda: held)
    f = Recorded([split_site(8.0)], job)
    outcome = f.run()
    assert [record["global"]["test_loss"] for record in f.records] == pytest.approx([0.0, 4.0, 9.0])
    assert outcome.best_round == 1


def test_training_starts_from_the_model_that_is_given() -> None:
    f = Recorded([split_site(8.0)], fedavg(Linear(1, lr=0.25), rounds=1, metrics=[], init={"w": np.zeros(1), "b": np.array(6.0)}))
    assert flat(dict(f.run().model)) == pytest.approx([0.0, 7.0])


def test_a_starting_model_of_another_shape_is_named() -> None:
    with pytest.raises(SpecError, match="path init/w"):
        Recorded([A], fedavg(Linear(1), rounds=1, metrics=[], init={"w": np.zeros(3), "b": np.array(6.0)})).run()


def test_a_site_without_training_rows_says_so() -> None:
    empty = Rows(np.zeros((1, 1)), np.zeros(1), parts=np.array([2], np.int8))
    with pytest.raises(DataError, match="no training rows"):
        models(fedavg(Linear(1), rounds=1, metrics=[]), [empty], 1)


def test_one_seed_samples_one_sequence_of_cohorts() -> None:
    def asked(seed: int) -> list[int]:
        f = Recorded(
            [rows(3, seed=k) for k in range(6)], fedavg(ConstantLearner({"w": np.ones(1)}), rounds=4, cohort=2, metrics=[])
        )
        f.seed = seed
        f.run()
        return [slot for name, slot, _ in f.came if name == "local_train"]

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)


@pytest.mark.parametrize("algorithm", [fedavg, fedsgd, fedprox, fedopt, scaffold])
def test_the_batched_form_gives_what_the_clients_give_one_by_one(algorithm: Algorithm) -> None:
    learner = logistic(features=3)
    assert isinstance(learner, BatchLearner)
    job = algorithm(learner, rounds=1, standardise=True, **({} if algorithm is fedsgd else {"epochs": 2}))
    data: list[Dataset] = [rows(n, d=3, seed=n) for n in (5, 9, 30)]
    state = job.process.initialize(data)
    from hansa.core.executor import FunctionExecutor
    from hansa.core.plan import plan
    from hansa.core.task import Shareable
    from hansa.simulation.vectorised import execute_many

    executor = FunctionExecutor(job.computations)
    (stage,) = plan(job.process.next).stages
    down: dict[str, Tree | Any] = {"shared": state.model, "round": np.asarray(0), "extra": state.extra}
    body = Shareable({label: down[label] for label, _ in stage.goes})

    def contexts() -> list[FLContext]:
        return [
            FLContext(slot=k, round=1, seed=3, load=lambda _, k=k: data[k], memory=InMemorySiteMemory())  # type: ignore[misc]
            for k in range(3)
        ]

    many = execute_many(executor, stage.task, body, contexts(), Signal())
    one = [executor.execute(stage.task, body, ctx, Signal()) for ctx in contexts()]
    for a, b in zip(many, one, strict=True):
        assert a.body.keys() == b.body.keys()
        for label in ("delta", "control"):
            left: Any = a.body.get(label, {})
            right: Any = b.body.get(label, {})
            for path, leaf in left.items():
                np.testing.assert_allclose(leaf, right[path], rtol=1e-5, atol=1e-7)
        assert a.metrics == pytest.approx(dict(b.metrics), rel=1e-5)


def test_the_first_model_is_drawn_from_the_seed() -> None:
    class Drawn(ConstantLearner):
        def init(self, rng: np.random.Generator) -> dict[str, Any]:
            return {"w": rng.normal(size=2)}

    job = fedavg(Drawn({"w": np.zeros(2)}), rounds=1, metrics=[])
    f = Recorded([rows(3)], job, seed=5)
    assert np.asarray(f.run().model["w"]).tolist() == generator(5, purpose="init").normal(size=2).tolist()


def hash_of(**options: Any) -> str:
    return Job("a", fedopt(Linear(), rounds=2, **{"metrics": [Loss()], **options})).hash


def test_each_option_changes_the_hash_of_the_job() -> None:
    model = {"w": np.zeros(2), "b": np.zeros(())}
    changes: list[dict[str, Any]] = [
        {},
        {"server_lr": 0.5},
        {"server_lr": {"kind": "inverse", "start": 0.5}},
        {"momentum": 0.9, "optimizer": "sgd"},
        {"optimizer": "sgd"},
        {"betas": (0.5, 0.9)},
        {"epsilon": 0.1},
        {"weighting": "uniform"},
        {"weight_cap": 9.0},
        {"metrics": []},
        {"metrics": ["mse"]},
        {"test": A},
        {"test": B},
        {"init": model},
        {"init": {**model, "b": np.ones(())}},
        {"standardise": True},
        {"aggregator": ExactMean(FixedPoint(bound=8.0, weight=8.0, count=100))},
        {"quorum": 2},
        {"evaluate_every": 2},
    ]
    hashes = [hash_of(**change) for change in changes]
    assert len(set(hashes)) == len(changes)
    assert hashes == [hash_of(**change) for change in changes]


def test_a_given_model_is_copied_and_named_by_its_digest() -> None:
    given = {"w": np.zeros(1), "b": np.array(6.0)}
    job = local_only(Linear(1), rounds=1, metrics=[], init=given)
    assert re.search(r"from a given model [0-9a-f]{12}$", job.about)
    outcome = Recorded([split_site(8.0)], job).run()
    assert not any(leaf is given[path] for path, leaf in outcome.state.model.items())
    assert outcome.model["w"] is not given["w"]


class Poisoned(Loss):
    """A loss that is nan at the site whose targets begin with 99."""

    def measure(self, y: Any, evaluation: Any) -> Tree:
        sums = super().measure(y, evaluation)
        return {**sums, "total": np.asarray(np.nan)} if len(y) and y[0] == 99.0 else sums


def test_the_nan_of_one_sites_metric_is_refused_by_name_and_leaves_the_others() -> None:
    bad = Rows(np.zeros((2, 1)), np.array([8.0, 99.0]), parts=np.array([0, 1], np.int8))
    data = population(2, lambda slot: (split_site(8.0), bad)[slot])
    job = Job("a", fedavg(Linear(1, lr=0.25), rounds=1, metrics=[Poisoned()]))
    [record] = simulate(job, data, seed=0).metrics
    assert record["global"]["loss"] == pytest.approx(16.0)
    [refused] = record["refused"]
    assert (refused["site"], refused["code"], refused["task"]) == ("site-001", "not_finite", "evaluate_valid")
    assert "loss/total" in refused["path"]
