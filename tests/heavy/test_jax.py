"""JaxLearner: the numbers of torch, names, dropout, step rules, and what it refuses."""

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="the jax extra is not installed")

import jax.numpy as jnp  # noqa: E402  after importorskip
import optax  # noqa: E402

import hansa as hs  # noqa: E402
from hansa.adapters.jax import JaxLearner  # noqa: E402
from hansa.adapters.numpy import softmax  # noqa: E402
from hansa.adapters.torch import TorchLearner  # noqa: E402
from hansa.core import trees  # noqa: E402
from hansa.core.protocols import FitConfig, Update  # noqa: E402
from hansa.core.rng import generator  # noqa: E402
from hansa.core.task import Aborted, Signal  # noqa: E402
from hansa.core.types import TensorType  # noqa: E402
from hansa.data.federated import from_arrays  # noqa: E402
from hansa.errors import ConfigError, DataError, SpecError  # noqa: E402
from hansa.learning.fedavg import fedavg  # noqa: E402
from hansa.learning.scaffold import scaffold  # noqa: E402
from hansa.testing.contracts import blobs  # noqa: E402

CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels


def linear(key: Any) -> Any:
    return {"weight": jnp.zeros((4, 2)), "bias": jnp.zeros(2)}


def logits(params: Any, x: Any) -> Any:
    return x @ params["weight"] + params["bias"]


def learner(**options: Any) -> JaxLearner:
    return JaxLearner(linear, logits, loss=CROSS_ENTROPY, **{"lr": 0.3, "batch": 5, **options})


def leaf(update: Update, path: str) -> Any:
    return trees.flatten(update.delta)[path]


def fit(chosen: Any, config: FitConfig | None = None, rows: int = 23) -> Update:
    model = chosen.init(generator(0))
    update: Update = chosen.fit(model, blobs(rows, seed=2), config or FitConfig(), rng=generator(4), abort=Signal())
    return update


def test_it_gives_the_numpy_learners_update_batch_by_batch() -> None:
    for config in (FitConfig(epochs=3), FitConfig(steps=7, clip=0.5, proximal=0.2)):
        ours = fit(learner(), config)
        theirs = fit(softmax(classes=2, features=4, lr=0.3, batch=5), config)
        for path, values in trees.leaves(theirs.delta):
            np.testing.assert_allclose(leaf(ours, path), values, rtol=1e-5, atol=1e-7)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours[1:4] == theirs[1:4]


@pytest.mark.parametrize(
    "options", [{"momentum": 0.9}, {"optimizer": "adam"}, {"optimizer": "adamw", "weight_decay": 0.1}, {"weight_decay": 0.1}]
)
def test_each_step_rule_moves_as_torchs_does(options: dict[str, Any]) -> None:
    import torch

    def net() -> torch.nn.Module:
        module = torch.nn.Linear(4, 2)
        torch.nn.init.zeros_(module.weight)
        torch.nn.init.zeros_(module.bias)
        return module

    theirs = fit(TorchLearner(net, loss=torch.nn.functional.cross_entropy, lr=0.3, batch=5, **options), FitConfig(epochs=3))
    ours = fit(learner(**options), FitConfig(epochs=3))
    np.testing.assert_allclose(leaf(ours, "weight"), leaf(theirs, "weight").T, rtol=2e-4, atol=1e-6)


def test_an_optimizer_of_optax_gets_the_step_size_that_the_algorithm_asks_for() -> None:
    ours = fit(learner(optimizer=optax.adam), FitConfig(lr=0.01, epochs=2))
    named = fit(learner(optimizer="adam", lr=0.01), FitConfig(epochs=2))
    np.testing.assert_allclose(leaf(ours, "weight"), leaf(named, "weight"), rtol=1e-4, atol=1e-6)


def test_leaves_stand_under_the_names_of_their_containers_and_come_back_in_them() -> None:
    def init(key: Any) -> Any:
        return {"layers": [{"w": jax.random.normal(key, (4, 3))}, (jnp.zeros((3, 2)),)], "seen": jnp.zeros((), jnp.int32)}

    def apply(params: Any, x: Any) -> Any:
        return jax.nn.relu(x @ params["layers"][0]["w"]) @ params["layers"][1][0]

    deep = JaxLearner(init, apply, loss=CROSS_ENTROPY)
    model = deep.init(generator(1))
    assert sorted(trees.flatten(model)) == ["layers/0/w", "layers/1/0", "seen"]
    assert isinstance(deep.to_params(model)["layers"][1], tuple)
    assert trees.flatten(fit(deep).delta)["seen"] == 0


def test_long_training_is_cut_into_calls_without_a_change() -> None:
    whole, first = fit(learner(), FitConfig(steps=300)), fit(softmax(classes=2, features=4, lr=0.3, batch=5), FitConfig(steps=300))
    np.testing.assert_allclose(leaf(whole, "weight"), leaf(first, "weight"), rtol=1e-4, atol=1e-5)
    model, stop = learner().init(generator(0)), Signal()
    stop.trigger("enough")
    with pytest.raises(Aborted, match="enough"):
        learner().fit(model, blobs(8, seed=1), FitConfig(), rng=generator(1), abort=stop)


def test_a_model_that_takes_a_key_drops_out_in_training_alone_and_the_same_each_time() -> None:
    def dropping(params: Any, x: Any, *, key: Any = None) -> Any:
        x = x if key is None else x * jax.random.bernoulli(key, 0.5, x.shape) * 2
        return logits(params, x)

    drops = JaxLearner(linear, dropping, loss=CROSS_ENTROPY, lr=0.3, batch=5)
    assert trees.equal(fit(drops).delta, fit(drops).delta)
    assert not trees.equal(fit(drops).delta, fit(learner()).delta)
    model = {"weight": np.ones((4, 2), np.float32), "bias": np.zeros(2, np.float32)}
    assert drops.evaluate(model, blobs(9, seed=1)).loss == learner().evaluate(model, blobs(9, seed=1)).loss


def test_a_federation_of_sites_of_many_sizes_gives_one_model_looped_and_vectorised() -> None:
    rng = np.random.default_rng(0)
    sites = {f"s{n}": (rng.normal(size=(n, 4)).astype(np.float32), rng.integers(0, 2, n)) for n in (5, 9, 31, 60, 64, 33)}
    data = from_arrays(sites, split=(1, 0, 0))
    for algorithm in (fedavg, scaffold):
        job = hs.Job("jax", algorithm(learner(), rounds=2, metrics=[], evaluate_sites="none"))
        loop, many = (hs.simulate(job, data, engine=engine, seed=1).model for engine in ("loop", "vectorised"))
        for path, values in trees.leaves(loop):
            np.testing.assert_allclose(trees.flatten(many)[path], values, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_is_refused_and_named() -> None:
    with pytest.raises(ConfigError, match=r"not one for each row; at path loss; .* \(leave out the mean"):
        fit(JaxLearner(linear, logits, loss=lambda output, y: CROSS_ENTROPY(output, y).mean()))
    with pytest.raises(ConfigError, match="no parameter to train"):
        JaxLearner(lambda key: {"n": jnp.zeros(2, jnp.int32)}, logits, loss=CROSS_ENTROPY).init(generator(0))
    with pytest.raises(ConfigError, match="a non-empty text without '/'"):
        JaxLearner(lambda key: {"a/b": jnp.zeros(2)}, logits, loss=CROSS_ENTROPY).init(generator(0))
    with pytest.raises(SpecError, match="path bias"):
        learner().evaluate({"weight": np.zeros((4, 2), np.float32)}, blobs(3, seed=1))
    with pytest.raises(DataError, match="rows must be numbers"):
        learner().predict(learner().init(generator(0)), np.array([["a"] * 4]))
    for options, path in (({"optimizer": "lion"}, "optimizer"), ({"momentum": 1.0}, "momentum"), ({"scores": "top"}, "scores")):
        with pytest.raises(ConfigError) as caught:
            learner(**options)
        assert caught.value.path == path


def test_a_job_is_checked_against_the_types_of_a_sites_data() -> None:
    ours, x, y = learner(), TensorType(np.float64, (None, 4)), TensorType(np.int64, (None,))
    ours.accepts(x, y)
    ours.accepts(TensorType(np.float32, None), y)
    for rows, path in ((TensorType(np.float32, (None, 5)), "x"), (TensorType(np.str_, (None, 4)), "x"), (y, "x")):
        with pytest.raises(DataError) as caught:
            ours.accepts(rows, y)
        assert caught.value.path == path
    with pytest.raises(DataError, match="targets that the loss takes") as caught:
        ours.accepts(x, TensorType(np.int64, (None, 3)))
    assert caught.value.path == "y"
    with pytest.raises(ConfigError, match="not one for each row"):
        JaxLearner(linear, logits, loss=lambda output, y: CROSS_ENTROPY(output, y).mean()).accepts(x, y)
