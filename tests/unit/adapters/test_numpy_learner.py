import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hansa import registry
from hansa.adapters.numpy import NumpyLearner, logistic, mlp, softmax
from hansa.adapters.numpy.nets import Net
from hansa.core import trees
from hansa.core.protocols import FitConfig, Update
from hansa.core.rng import generator
from hansa.core.task import Signal
from hansa.core.trees import Array, Tree
from hansa.errors import ConfigError, DataError, SpecError
from hansa.testing.contracts import SplitRows, blobs

TWO_ROWS = SplitRows(np.array([[1.0, 2.0], [3.0, -1.0]], np.float32), np.array([1, 0]), 2)


def fit(learner: NumpyLearner, data: SplitRows, config: FitConfig = FitConfig(), model: Tree | None = None) -> Update:  # noqa: B008  frozen
    start = learner.init(generator(0)) if model is None else model
    return learner.fit(start, data, config, rng=generator(0), abort=Signal())


def leaves(update: Update) -> dict[str, Array]:
    return trees.flatten(update.delta)


def test_one_step_of_logistic_regression_by_hand() -> None:
    # From zero p = 1/2: the errors are -1/2 and 1/2, so grad w = ((-1 + 3)/4, (-2 - 1)/4) and grad b = 0.
    update = fit(logistic(features=2, lr=0.1, batch=0), TWO_ROWS)
    np.testing.assert_allclose(leaves(update)["weight"], [[-0.05], [0.075]], rtol=1e-6)
    np.testing.assert_allclose(leaves(update)["bias"], [0.0])
    assert update[1:4] == (2, 1, 0.1)
    assert math.isclose(update.loss, math.log(2), rel_tol=1e-6)


def test_one_step_of_softmax_by_hand() -> None:
    # From zero p = (1/2, 1/2): the first row's error is (1/2, -1/2), the second's (-1/2, 1/2).
    update = fit(softmax(classes=2, features=2, lr=0.1, batch=0), TWO_ROWS)
    np.testing.assert_allclose(leaves(update)["weight"], [[0.05, -0.05], [-0.075, 0.075]], rtol=1e-6)
    np.testing.assert_allclose(leaves(update)["bias"], [0.0, 0.0])


def test_weight_decay_pulls_at_weights_and_not_at_biases() -> None:
    model = {"weight": np.array([[2.0]]), "bias": np.array([1.0])}
    data = SplitRows(np.zeros((2, 1)), np.array([0, 1]), 2)
    plain = fit(logistic(features=1, lr=0.1, batch=0), data, model=model)
    decayed = fit(logistic(features=1, lr=0.1, batch=0, l2=0.5), data, model=model)
    np.testing.assert_allclose(leaves(plain)["weight"], [[0.0]])
    np.testing.assert_allclose(leaves(decayed)["weight"], [[-0.1 * 0.5 * 2.0]])
    np.testing.assert_array_equal(leaves(decayed)["bias"], leaves(plain)["bias"])


def test_momentum_carries_the_first_gradient_into_the_second_step() -> None:
    one, two = FitConfig(steps=1), FitConfig(steps=2)
    model = {"weight": np.zeros((2, 1)), "bias": np.zeros(1)}
    plain, heavy = logistic(lr=0.1, batch=0), logistic(lr=0.1, batch=0, momentum=0.5)
    first = fit(plain, TWO_ROWS, one, model).delta
    want = trees.add(fit(plain, TWO_ROWS, two, model).delta, trees.scale(first, 0.5))
    np.testing.assert_allclose(leaves(fit(heavy, TWO_ROWS, two, model))["weight"], want["weight"], rtol=1e-9)


def test_the_first_step_of_adam_is_the_step_size_in_the_direction_of_the_gradients_sign() -> None:
    update = fit(logistic(features=2, lr=0.1, batch=0, optimizer="adam"), TWO_ROWS)
    np.testing.assert_allclose(leaves(update)["weight"], [[-0.1], [0.1]], rtol=1e-5)


def test_two_steps_of_adam_follow_the_papers_formula() -> None:
    model, x, y = {"weight": np.array([[0.3]]), "bias": np.zeros(1)}, np.array([[1.0], [2.0]]), np.array([0, 1])
    m, v, w = np.zeros(2), np.zeros(2), np.array([0.3, 0.0])
    for t in (1, 2):
        error = 1 / (1 + np.exp(-(x[:, 0] * w[0] + w[1]))) - y
        g = np.array([error @ x[:, 0], error.sum()]) / 2
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    update = fit(logistic(lr=0.1, batch=0, epochs=2, optimizer="adam"), SplitRows(x, y, 2), model=model)
    np.testing.assert_allclose([leaves(update)["weight"][0, 0], leaves(update)["bias"][0]], w - [0.3, 0.0], rtol=1e-9)


@pytest.mark.parametrize("make", [lambda: logistic(4), lambda: softmax(3, 4), lambda: mlp((5, 3), classes=3, features=4)])
def test_gradients_are_those_of_finite_differences(make: Callable[[], NumpyLearner]) -> None:
    learner, rng = make(), np.random.Generator(np.random.Philox(1))
    model = {name: rng.normal(size=leaf.shape) for name, leaf in trees.leaves(learner.init(rng))}
    x = rng.normal(size=(6, 4))
    data = SplitRows(x, rng.integers(2 if learner.kind == "logistic" else 3, size=6), 6)
    # With a step size of 1 and all rows at once, one step moves by minus the gradient.
    gradient = leaves(fit(learner, data, FitConfig(lr=1.0, batch=0), model))
    for name, leaf in model.items():
        for index in np.ndindex(leaf.shape):
            losses = []
            for change in (1e-5, -1e-5):
                moved = trees.copy(model)
                moved[name][index] += change
                losses.append(learner.evaluate(moved, data).loss)
            assert math.isclose(-gradient[name][index], (losses[0] - losses[1]) / 2e-5, rel_tol=1e-6, abs_tol=1e-8), (name, index)


def test_local_sgd_takes_the_batches_of_the_streams_permutations() -> None:
    data, rng = blobs(7, seed=2), generator(0)
    w, b = np.zeros((4, 2)), np.zeros(2)
    for _ in range(2):
        order = rng.permutation(7)
        for rows in (order[:3], order[3:6], order[6:]):
            z = data.x[rows] @ w + b
            error = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) - np.eye(2)[data.y[rows]]
            w, b = w - 0.1 * data.x[rows].T @ error / len(rows), b - 0.1 * error.mean(axis=0)
    update = fit(softmax(2, 4, batch=3, epochs=2), data)
    assert update.steps == 6
    np.testing.assert_allclose(leaves(update)["weight"], w, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(leaves(update)["bias"], b, rtol=1e-4, atol=1e-7)


def test_what_an_algorithm_says_about_length_replaces_both_of_the_learners_settings() -> None:
    assert fit(softmax(2, 4, steps=9), blobs(6, seed=0), FitConfig(epochs=2, batch=3)).steps == 4
    assert fit(softmax(2, 4, steps=9), blobs(6, seed=0), FitConfig(batch=3)).steps == 9
    assert fit(softmax(2, 4, epochs=5), blobs(6, seed=0), FitConfig(steps=3, batch=3)).steps == 3


def test_images_of_bytes_are_flattened_and_cast_without_scaling() -> None:
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    bytes_ = SplitRows(images, np.array([0, 1]), 2)
    floats = SplitRows(images.reshape(2, 4).astype(np.float32), np.array([0.0, 1.0]), 2)
    learner = softmax(2, 4)
    assert trees.equal(fit(learner, bytes_).delta, fit(learner, floats).delta)
    assert leaves(fit(learner, bytes_))["weight"].dtype == np.float32


def test_an_update_has_the_dtype_of_a_wider_model() -> None:
    learner = softmax(2, 4)
    wide = trees.map(lambda a: a.astype(np.float64), learner.init(generator(0)))
    update = fit(learner, blobs(6, seed=0), model=wide)
    assert {leaf.dtype for _, leaf in trees.leaves(update.delta)} == {np.dtype(np.float64)}


def test_probabilities_of_large_logits_stay_probabilities() -> None:
    rows = np.array([[1e4], [-1e4], [0.0]], np.float32)
    weight = {"weight": np.ones((1, 1), np.float32), "bias": np.zeros(1, np.float32)}
    np.testing.assert_array_equal(logistic().predict(weight, rows), np.array([1.0, 0.0, 0.5], np.float32))
    two = {"weight": np.array([[1.0, -1.0]], np.float32), "bias": np.zeros(2, np.float32)}
    np.testing.assert_array_equal(softmax().predict(two, rows), np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32))


def test_many_rows_are_predicted_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, data = mlp((5,), classes=2, features=4), blobs(10, seed=0)
    model = learner.init(generator(1))
    whole = learner.evaluate(model, data)
    monkeypatch.setattr("hansa.adapters.numpy.learner._CHUNK_ROWS", 3)
    pieces = learner.evaluate(model, data)
    np.testing.assert_allclose(pieces.scores, whole.scores, rtol=1e-6)
    assert math.isclose(pieces.loss, whole.loss, rel_tol=1e-6)


def test_the_first_perceptron_follows_he_and_the_stream() -> None:
    model = mlp((300,), classes=2, features=200).init(generator(4))
    weight, bias = model["0.weight"], model["0.bias"]
    assert isinstance(weight, np.ndarray)
    assert abs(weight.std() - math.sqrt(2 / 200)) < 0.001
    np.testing.assert_array_equal(bias, np.zeros(300, np.float32))


def test_a_shape_that_is_not_known_is_asked_for_by_name() -> None:
    assert softmax().needs_data
    assert not logistic(features=3).needs_data
    with pytest.raises(ConfigError, match=r"path features.*features=\.\.\..*bound_to"):
        logistic().init(generator(0))
    with pytest.raises(ConfigError, match="path classes"):
        softmax(features=3).init(generator(0))


def test_a_learner_is_bound_to_a_sites_rows_and_keeps_what_it_was_given() -> None:
    data = SplitRows(np.zeros((3, 2, 2)), np.array([0, 2, 1]), 3)
    assert repr(softmax().bound_to(data)) == "numpy.softmax(classes=3, features=4, lr=0.1, epochs=1, batch=32)"
    assert softmax().bound_to(data, classes=10).classes == 10
    assert softmax(classes=5).bound_to(data, classes=10).classes == 5
    assert logistic().bound_to(data, classes=2).features == 4
    with pytest.raises(DataError, match="expected 3 features; got 4"):
        softmax(features=3).bound_to(data)
    with pytest.raises(DataError, match=r"numpy\.softmax"):
        logistic().bound_to(data, classes=3)
    with pytest.raises(DataError, match="classes"):
        softmax().bound_to(SplitRows(np.zeros((0, 4)), np.zeros(0), 0))


def test_it_prints_what_differs_from_the_defaults() -> None:
    text = repr(mlp((8, 4), steps=3, l2=0.1, momentum=0.9))
    assert text == "numpy.mlp(hidden=(8, 4), lr=0.1, steps=3, batch=32, l2=0.1, momentum=0.9)"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_missing_value_names_the_first_column_that_has_one(bad: float) -> None:
    data = blobs(6, seed=0)
    x = data.x.copy()
    x[3:5, 2] = bad
    broken, learner = SplitRows(x, data.y, 6), softmax(2, 4)
    with pytest.raises(DataError, match=r"x column 2.*2 of 6 rows.*standardise"):
        fit(learner, broken)
    with pytest.raises(DataError, match="x column 2"):
        learner.predict(learner.init(generator(0)), x)


def test_values_whose_sum_overflows_are_no_missing_values() -> None:
    x = np.full((2, 1), 3e38, np.float32)
    assert softmax(2, 1).predict(softmax(2, 1).init(generator(0)), x).shape == (2, 2)


@pytest.mark.parametrize("labels", [np.array([0, 2]), np.array([0, -1]), np.array([0.0, 0.5]), np.array([0.0, np.nan])])
def test_a_label_that_is_no_class_names_its_row(labels: Array) -> None:
    with pytest.raises(DataError, match=r"y row 1.*0 to 1"):
        fit(logistic(2), SplitRows(TWO_ROWS.x, labels, 2))


def test_rows_and_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="expected 3 features; got 2"):
        fit(softmax(2, 3), TWO_ROWS)
    with pytest.raises(DataError, match="each row needs one target"):
        fit(softmax(2, 2), SplitRows(TWO_ROWS.x, np.array([0]), 2))
    with pytest.raises(DataError, match="labels must be numbers"):
        fit(softmax(2, 2), SplitRows(TWO_ROWS.x, np.array(["a", "b"]), 2))


def test_a_model_of_another_learner_is_refused_by_its_first_wrong_leaf() -> None:
    learner = mlp((3,), classes=2, features=2)
    model = dict(learner.init(generator(0)))
    for wrong, path in (
        ({**model, "1.weight": np.zeros((4, 2), np.float32)}, "1.weight"),
        ({**model, "extra": np.zeros(1, np.float32)}, "extra"),
        ({name: leaf for name, leaf in model.items() if name != "1.bias"}, "1.bias"),
        (softmax(2, 2).init(generator(0)), "0.weight"),
        ({**model, "0.weight": np.zeros((2, 3), np.int64)}, "0.weight"),
    ):
        with pytest.raises(SpecError, match=path):
            fit(learner, TWO_ROWS, model=wrong)


def test_a_correction_of_another_shape_is_refused() -> None:
    with pytest.raises(SpecError, match="bias"):
        fit(softmax(2, 2), TWO_ROWS, FitConfig(correction={"bias": np.zeros(3, np.float32)}))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lr", -1.0),
        ("lr", math.nan),
        ("epochs", 0),
        ("steps", 0),
        ("batch", -1),
        ("l2", -0.1),
        ("momentum", 1.0),
        ("optimizer", "lion"),
    ],
)
def test_a_setting_out_of_range_is_named(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"path {setting}"):
        softmax(**{setting: value})  # type: ignore[arg-type]  # the wrong value is the test


def test_other_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ConfigError, match="momentum"):
        softmax(optimizer="adam", momentum=0.9)
    with pytest.raises(ConfigError, match="hidden"):
        mlp((0,))
    with pytest.raises(ConfigError, match="clip"):
        fit(softmax(2, 2), TWO_ROWS, FitConfig(clip=0.0))


def test_a_step_size_too_large_is_left_for_the_gate_to_name() -> None:
    update = fit(mlp((3,), classes=2, features=2, lr=1e30, epochs=5), TWO_ROWS)
    assert not all(np.isfinite(leaf).all() for _, leaf in trees.leaves(update.delta))


def test_a_net_writes_and_reads_its_parameters() -> None:
    model = {"weight": np.arange(6.0).reshape(3, 2), "bias": np.array([7.0, 8.0])}
    net, row = Net.of(model, prefixes=("",), head="softmax"), np.empty(8)
    net.flatten(model, row)
    stacked = {path: np.zeros((3, *leaf.shape)) for path, leaf in model.items()}
    net.unflatten(np.stack([2 * row, 3 * row]), row[None], stacked, [2, 0])
    assert trees.equal({path: leaf[2] for path, leaf in stacked.items()}, model)
    assert trees.equal({path: leaf[0] for path, leaf in stacked.items()}, {path: 2 * leaf for path, leaf in model.items()})
    assert not any(leaf[1].any() for leaf in stacked.values())
    net.unflatten(np.stack([2 * row, 3 * row]), row[None], stacked, [1, 2])
    assert trees.equal({path: leaf[1] for path, leaf in stacked.items()}, model)


@pytest.mark.parametrize("make", [logistic, softmax, mlp])
def test_a_job_file_finds_the_learner_by_name(make: Callable[[], NumpyLearner]) -> None:
    assert registry.find("learners", f"numpy.{make.__name__}") is make


def test_a_models_file_is_the_model_in_one_line(tmp_path: Path) -> None:
    learner = mlp((3,), classes=2, features=4)
    model = learner.init(generator(0))
    save_file(trees.flatten(model), tmp_path / "model.safetensors")
    data = blobs(5, seed=0)
    np.testing.assert_array_equal(
        learner.predict(load_file(tmp_path / "model.safetensors"), data.x), learner.predict(model, data.x)
    )


def test_all_rows_at_once_are_trained_on_for_many_epochs() -> None:
    data = blobs(9, seed=3)
    learner = softmax(2, 4, batch=0, epochs=4)
    whole, large = fit(learner, data), fit(learner, data, FitConfig(batch=9))
    assert whole.steps == large.steps == 4
    assert trees.norm(trees.subtract(whole.delta, large.delta)) <= 1e-5 * trees.norm(whole.delta)


@pytest.mark.parametrize(
    ("learner", "rule"),
    [(softmax(2, 4, l2=0.1), "sgd"), (softmax(2, 4, momentum=0.9), "momentum"), (mlp((3,), optimizer="adam"), "adam")],
)
def test_it_tells_its_step_rule(learner: NumpyLearner, rule: str) -> None:
    assert learner.rule == rule


def test_epochs_and_steps_are_not_given_together() -> None:
    with pytest.raises(ConfigError, match="give epochs or steps"):
        softmax(2, 4, epochs=1, steps=2)
