"""KerasLearner: the numbers of NumPy and torch, names, batch normalisation, dropout, and each framework that Keras stands on."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="the keras extra is not installed")

import hansa as hs  # noqa: E402  after importorskip
from hansa import tensors  # noqa: E402
from hansa.adapters.keras import KerasLearner  # noqa: E402
from hansa.adapters.keras.held import array  # noqa: E402
from hansa.adapters.numpy import softmax  # noqa: E402
from hansa.core import trees  # noqa: E402
from hansa.core.protocols import FitConfig, Update  # noqa: E402
from hansa.core.rng import generator  # noqa: E402
from hansa.core.task import Signal  # noqa: E402
from hansa.core.types import TensorType  # noqa: E402
from hansa.data.federated import from_arrays  # noqa: E402
from hansa.errors import ConfigError, DataError, SpecError  # noqa: E402
from hansa.learning.fedavg import fedavg  # noqa: E402
from hansa.testing.contracts import blobs  # noqa: E402

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
layers = keras.layers


def linear() -> Any:
    return keras.Sequential([keras.Input((4,)), layers.Dense(2, kernel_initializer="zeros")])


def normalised() -> Any:
    x = keras.Input((4,))
    hidden = layers.Dropout(0.5)(layers.BatchNormalization(momentum=0.5)(layers.Dense(3, name="first")(x)))
    return keras.Model(x, layers.Dense(2)(layers.Dense(3, trainable=False)(hidden)))


def learner(model: Any = linear, **options: Any) -> KerasLearner:
    return KerasLearner(model, **{"loss": LOGITS, "lr": 0.3, "batch": 5, **options})


def leaf(update: Update, path: str) -> Any:
    return trees.flatten(update.delta)[path]


def fit(chosen: Any, config: FitConfig | None = None, rows: int = 23) -> Update:
    model = chosen.init(generator(0))
    update: Update = chosen.fit(model, blobs(rows, seed=2), config or FitConfig(), rng=generator(4), abort=Signal())
    return update


def test_it_gives_the_numpy_learners_update_batch_by_batch() -> None:
    ours = learner()
    for config in (FitConfig(epochs=3), FitConfig(steps=7, clip=0.5, proximal=0.2), FitConfig(epochs=3)):
        mine, theirs = fit(ours, config), fit(softmax(classes=2, features=4, lr=0.3, batch=5), config)
        for mine_at, at in (("dense/kernel", "weight"), ("dense/bias", "bias")):
            np.testing.assert_allclose(leaf(mine, mine_at), leaf(theirs, at), rtol=1e-5, atol=1e-6)
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert mine[1:4] == theirs[1:4]


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9, "weight_decay": 0.1},
        {"optimizer": "adam", "weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"loss": lambda y, output: keras.ops.mean((output - keras.ops.one_hot(y, 2)) ** 2, axis=1)},
    ],
)
def test_each_step_rule_and_loss_moves_as_torchs_does(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    from hansa.adapters.torch import TorchLearner

    def net() -> Any:
        module = torch.nn.Linear(4, 2)
        torch.nn.init.zeros_(module.weight)
        torch.nn.init.zeros_(module.bias)
        return module

    def squares(output: Any, y: Any) -> Any:
        return ((output - torch.nn.functional.one_hot(y, 2)) ** 2).mean()

    rule = {key: value for key, value in options.items() if key != "loss"}
    theirs = TorchLearner(net, loss=squares if "loss" in options else torch.nn.functional.cross_entropy, lr=0.3, batch=5, **rule)
    ours, want = fit(learner(**options), FitConfig(epochs=3)), fit(theirs, FitConfig(epochs=3))
    np.testing.assert_allclose(leaf(ours, "dense/kernel"), leaf(want, "weight").T, rtol=2e-4, atol=1e-6)


def test_an_optimizer_of_keras_begins_anew_at_the_step_size_that_the_algorithm_asks_for() -> None:
    own = learner(optimizer=lambda lr: keras.optimizers.SGD(lr / 2, momentum=0.9))
    falling = learner(optimizer=lambda lr: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(lr, 1, 0.5)))
    named = learner(momentum=0.9)
    for lr in (0.01, 0.3, 0.01):
        mine, theirs = fit(own, FitConfig(lr=2 * lr, epochs=2)), fit(named, FitConfig(lr=lr, epochs=2))
        np.testing.assert_allclose(leaf(mine, "dense/kernel"), leaf(theirs, "dense/kernel"), rtol=1e-5, atol=1e-7)
        one, two = (leaf(fit(falling, FitConfig(lr=lr, steps=steps)), "dense/bias") for steps in (1, 2))
        np.testing.assert_allclose(one, leaf(fit(named, FitConfig(lr=lr, steps=1)), "dense/bias"), rtol=1e-5, atol=1e-7)
        assert not np.allclose(one, two, rtol=1e-3)


def test_leaves_stand_under_keras_paths_whatever_was_built_before_and_statistics_are_kept() -> None:
    normalised()
    deep = learner(normalised)
    model = deep.init(generator(1))
    own = [f"batch_normalization/{name}" for name in ("beta", "gamma", "moving_mean", "moving_variance")]
    dense = [f"{name}/{part}" for name in ("dense", "dense_1", "first") for part in ("bias", "kernel")]
    assert sorted(trees.flatten(model)) == [*own, *dense]
    update = fit(deep)
    assert np.abs(leaf(update, "batch_normalization/moving_mean")).min() > 0
    assert not leaf(update, "dense_1/kernel").any(), "it is not trained"


def test_dropout_draws_in_training_alone_and_the_same_each_time() -> None:
    deep = learner(normalised)
    first, second, other = fit(deep), fit(deep), fit(deep, rows=22)
    assert trees.equal(first.delta, second.delta)
    assert not trees.equal(first.delta, other.delta)
    still = fit(learner(lambda: keras.Sequential([layer for layer in normalised().layers if "dropout" not in layer.name])))
    assert not trees.equal(trees.flatten(first.delta), trees.flatten(still.delta))
    model = deep.init(generator(0))
    assert deep.evaluate(model, blobs(9, seed=1)).loss == deep.evaluate(model, blobs(9, seed=1)).loss


def test_a_run_gives_back_the_users_own_model(tmp_path: Path) -> None:
    sites = {f"s{n}": (blobs(n, seed=n).x, blobs(n, seed=n).y) for n in (9, 31, 60)}
    ours = learner(normalised)
    job = hs.Job("keras", fedavg(ours, rounds=2, metrics=["accuracy", "loss"]))
    result = hs.simulate(job, from_arrays(sites), seed=1, out=tmp_path / "run")
    mine, rows = normalised(), blobs(5, seed=9).x
    ours.load(mine, result.model)
    saved, _ = tensors.load_tree(tmp_path / "run" / "model.safetensors")
    for model in (mine, ours.to_model(saved)):
        output = array(keras.ops.softmax(model(rows, training=False)))
        np.testing.assert_allclose(output, ours.predict(result.model, rows), rtol=1e-5)
    assert {"accuracy", "loss"} <= set(result.metrics[-1]["global"])


def test_probabilities_and_values_are_read_as_they_are() -> None:
    for loss, activation, metrics in (
        ("binary_crossentropy", "sigmoid", ("loss", "accuracy", "auc")),
        (keras.losses.BinaryCrossentropy(from_logits=True), None, ("loss", "accuracy", "auc")),
        ("mse", None, ("loss", "mse", "mae")),
    ):
        one = learner(lambda a=activation: keras.Sequential([keras.Input((4,)), layers.Dense(1, activation=a)]), loss=loss)
        evaluation = one.evaluate(one.init(generator(0)), blobs(7, seed=1))
        assert one.metrics == metrics
        assert evaluation.scores.shape == (7,)
        assert ((evaluation.scores > 0) & (evaluation.scores < 1)).all() or loss == "mse"
    assert str(learner(loss="mse")) == "KerasLearner(linear, loss=MeanSquaredError(), lr=0.3, epochs=1, batch=5)"


def test_what_a_layer_adds_to_the_loss_counts_in_training() -> None:
    def pulled() -> Any:
        regular = keras.regularizers.L2(0.5)
        return keras.Sequential([keras.Input((4,)), layers.Dense(2, kernel_initializer="ones", kernel_regularizer=regular)])

    def free() -> Any:
        return keras.Sequential([keras.Input((4,)), layers.Dense(2, kernel_initializer="ones")])

    mine, theirs = (fit(learner(model), FitConfig(steps=1, batch=0)) for model in (pulled, free))
    np.testing.assert_allclose(leaf(mine, "dense/kernel"), leaf(theirs, "dense/kernel") - 0.3, rtol=1e-4)  # lr * 2 * 0.5 * 1


def test_what_cannot_be_is_refused_and_named() -> None:
    for make, path, what in (
        (lambda: learner(linear()), "model", "a function that builds"),
        (lambda: learner(loss="top"), "loss", "Keras has no such loss"),
        (lambda: learner(loss=keras.losses.MeanSquaredError(reduction="sum")), "loss", "no mean over the rows"),
        (lambda: fit(learner(loss=lambda y, output: keras.ops.mean(output))), "loss", "not one for each row"),
        (lambda: fit(learner(lambda: keras.Sequential([layers.Dense(2)]))), "model", "does not know its inputs"),
        (lambda: fit(learner(optimizer=lambda lr: "sgd")), "optimizer", "must return a Keras optimizer"),
    ):
        with pytest.raises(ConfigError, match=what) as caught:
            make()
        assert caught.value.path == path
    with pytest.raises(SpecError, match="path dense/bias"):
        learner().evaluate({"dense": {"kernel": np.zeros((4, 2), np.float32)}}, blobs(3, seed=1))
    with pytest.raises(DataError, match="rows must be numbers"):
        learner().predict(learner().init(generator(0)), np.array([["a"] * 4]))


def test_a_job_is_checked_against_the_types_of_a_sites_data() -> None:
    ours, y = learner(), TensorType(np.int64, (None,))
    ours.accepts(TensorType(np.float64, (None, 4)), y)
    ours.accepts(TensorType(np.float32, None), y)
    for x, path in ((TensorType(np.float32, (None, 5)), "x"), (TensorType(np.str_, (None, 4)), "x"), (y, "x")):
        with pytest.raises(DataError) as caught:
            ours.accepts(x, y)
        assert caught.value.path == path
    with pytest.raises(DataError, match=r"rows that the model takes; got float32\[\?,5\] \(.*xpected .*5"):
        ours.accepts(TensorType(np.float32, (None, 5)), y)
    with pytest.raises(DataError, match="targets that the loss takes") as caught:
        ours.accepts(TensorType(np.float32, (None, 4)), TensorType(np.int64, (None, 3)))
    assert caught.value.path == "y"


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_it_stands_on_each_framework(framework: str) -> None:
    pytest.importorskip(framework)
    if keras.backend.backend() == framework:
        pytest.skip("this run is on it")
    here = Path(__file__)
    both = "batch_by_batch or keras_paths or users_own_model or checked_against"
    chosen = f"{both} or (Regression and (same_bits or batch or term or correction))"
    files = [str(here), str(here.with_name("test_keras_contract.py"))]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        "-o",
        "addopts=--import-mode=importlib",
        "-k",
        chosen,
        *files,
    ]
    environment = {**os.environ, "KERAS_BACKEND": framework}
    done = subprocess.run(command, env=environment, cwd=here.parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
