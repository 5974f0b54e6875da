"""TorchLearner: trees, scores, the loop's numbers by hand and against torch.optim, and what must not leak."""

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle  # type: ignore[import-untyped,unused-ignore]  # it ships no types
import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from safetensors.numpy import save_file  # noqa: E402  after importorskip
from safetensors.torch import load_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812  torch's own convention

from hansa.adapters.torch import TorchLearner  # noqa: E402
from hansa.core import trees  # noqa: E402
from hansa.core.protocols import BatchLearner, Dataset, FitConfig, Update  # noqa: E402
from hansa.core.rng import generator  # noqa: E402
from hansa.core.task import Aborted, Signal  # noqa: E402
from hansa.core.trees import Array, Tree  # noqa: E402
from hansa.data.rows import Rows  # noqa: E402
from hansa.errors import ConfigError, DataError, SpecError  # noqa: E402
from hansa.testing.contracts import SplitRows, blobs  # noqa: E402


def fit(learner: TorchLearner, model: Tree, data: Dataset, config: FitConfig | None = None, *, seed: int = 1) -> Update:
    return learner.fit(model, data, config or FitConfig(), rng=generator(seed), abort=Signal())


def rows(x: Any, y: Any) -> SplitRows:
    return SplitRows(np.asarray(x), np.asarray(y), len(x))


def line() -> nn.Module:
    return nn.Linear(1, 1, bias=False)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.there = nn.Linear(4, 4, bias=False)
        self.back = nn.Linear(4, 4, bias=False)
        self.back.weight = self.there.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.back(torch.tanh(self.there(x)))
        return out


class Counting(nn.Module):
    """Keeps a buffer out of its state, and one that it replaces rather than changes."""

    seen: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x) * (1 + self.seen)
        if self.training:
            self.seen += 1
            self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
        return out


W: Tree = {"weight": np.array([[1.0]], np.float32)}


def test_a_model_is_the_modules_state_under_torchs_names_and_dtypes() -> None:
    model = TorchLearner(normed, loss=F.cross_entropy).init(generator(0))
    assert list(model) == list(normed().state_dict())
    tracked = model["1.num_batches_tracked"]
    assert isinstance(tracked, np.ndarray)
    assert trees.Leaf(tracked.dtype, tracked.shape) == trees.Leaf(np.dtype(np.int64), ())


def test_initial_weights_are_the_users_under_a_seed_and_torchs_generator_stays_as_it_was() -> None:
    before = torch.get_rng_state()
    learner = TorchLearner(linear, loss=F.cross_entropy)
    assert not trees.equal(learner.init(generator(1)), learner.init(generator(2)))
    fit(TorchLearner(normed, loss=F.cross_entropy), TorchLearner(normed, loss=F.cross_entropy).init(generator(1)), blobs(8, seed=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_saved_tree_loads_into_the_users_own_module_in_one_line(tmp_path: Any) -> None:
    learner = TorchLearner(normed, loss=F.cross_entropy)
    model = learner.init(generator(0))
    save_file(dict(sorted(trees.flatten(model).items())), tmp_path / "model.safetensors")
    module = normed()
    module.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = np.ones((3, 4), np.float32)
    want = torch.softmax(module.eval()(torch.from_numpy(x)), dim=1).detach().numpy()
    np.testing.assert_array_equal(learner.predict(model, x), want)
    np.testing.assert_array_equal(torch.softmax(learner.to_module(model)(torch.from_numpy(x)), dim=1).detach().numpy(), want)


def test_two_sgd_steps_of_a_line_are_what_the_hand_computes() -> None:
    # w = 1, (x, y) = (1, 0), (2, 0) in one batch: loss = w^2 (1 + 4) / 2 = 2.5, gradient 5 w. lr 0.1: 1 -> 0.5 -> 0.25.
    learner = TorchLearner(line, loss=F.mse_loss, lr=0.1, batch=0, epochs=2)
    update = fit(learner, W, rows(np.array([[1.0], [2.0]], np.float32), np.zeros(2, np.float32)))
    np.testing.assert_allclose(trees.flatten(update.delta)["weight"], [[-0.75]], rtol=1e-6)
    assert update[1:4] == (2, 2, 0.1)
    assert update.loss == pytest.approx((2.5 + 0.625) / 2)


def test_what_an_algorithm_adds_is_what_the_hand_computes() -> None:
    # Gradient 5 w. First step: 5 + 1 (correction), clipped to 3: w = 1 - 0.3. Second: 3.5 + 2 (0.7 - 1) + 1 = 3.9, clipped to 3.
    config = FitConfig(lr=0.1, epochs=2, batch=0, clip=3.0, proximal=2.0, correction={"weight": np.ones((1, 1), np.float32)})
    data = rows(np.array([[1.0], [2.0]], np.float32), np.zeros(2, np.float32))
    learner = TorchLearner(line, loss=F.mse_loss)
    np.testing.assert_allclose(trees.flatten(fit(learner, W, data, config).delta)["weight"], [[-0.6]], rtol=1e-6)
    free = FitConfig(lr=0.1, epochs=2, batch=0, proximal=2.0, correction={"weight": np.ones((1, 1), np.float32)})
    # Unclipped: 1 - 0.6 = 0.4; then 2 + 2 (0.4 - 1) + 1 = 1.8: 0.22.
    np.testing.assert_allclose(trees.flatten(fit(learner, W, data, free).delta)["weight"], [[-0.78]], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ({}, lambda p, lr: torch.optim.SGD(p, lr)),
        ({"momentum": 0.9, "weight_decay": 0.01}, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, weight_decay=0.01)),
        ({"optimizer": "adam", "weight_decay": 0.01}, lambda p, lr: torch.optim.Adam(p, lr, weight_decay=0.01)),
        ({"optimizer": "adamw", "weight_decay": 0.01}, lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=0.01)),
    ],
)
def test_a_step_rule_is_torchs_own(settings: dict[str, Any], reference: Callable[..., Any]) -> None:
    ours = TorchLearner(mlp, loss=F.cross_entropy, lr=0.05, epochs=3, batch=5, **settings)
    torchs = TorchLearner(mlp, loss=F.cross_entropy, lr=0.05, epochs=3, batch=5, optimizer=reference)
    model, data = ours.init(generator(0)), blobs(13, seed=0)
    mine, theirs = (trees.flatten(fit(learner, model, data).delta) for learner in (ours, torchs))
    for path, leaf in theirs.items():
        np.testing.assert_allclose(mine[path], leaf, rtol=1e-5, atol=1e-7)


def test_batches_are_permutations_of_the_stream_with_a_short_last_one() -> None:
    seen: list[list[float]] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x[:, 0].tolist())
            return x[:, 0] * self.w

    data = rows(np.arange(5, dtype=np.float32)[:, None], np.zeros(5, np.float32))
    learner = TorchLearner(Spy, loss=F.mse_loss, lr=0.0, batch=2)
    fit(learner, learner.init(generator(0)), data, FitConfig(steps=4))
    stream = generator(1)
    first, second = stream.permutation(5).tolist(), stream.permutation(5).tolist()
    assert seen == [first[:2], first[2:4], first[4:], second[:2]]


def test_nothing_of_one_client_reaches_the_next() -> None:
    learner = TorchLearner(normed, loss=F.cross_entropy, optimizer="adam")
    model, a, b = learner.init(generator(0)), blobs(9, seed=0), blobs(20, seed=1)
    first = [fit(learner, model, a).delta, fit(learner, model, b).delta]
    second = [fit(learner, model, b).delta, fit(learner, model, a).delta][::-1]
    assert all(trees.equal(x, y) for x, y in zip(first, second, strict=True))
    assert not trees.equal(fit(learner, model, a, seed=2).delta, first[0])


def test_buffers_outside_the_state_and_buffers_that_are_replaced_start_anew_for_each_client() -> None:
    learner = TorchLearner(Counting, loss=F.cross_entropy, batch=4)
    model, data = learner.init(generator(0)), blobs(9, seed=0)
    first = fit(learner, model, data).delta
    assert trees.equal(fit(learner, model, data).delta, first)
    assert np.abs(trees.flatten(first)["mean"]).sum() > 0


def test_buffers_are_part_of_the_update_and_counts_stay_integers() -> None:
    learner = TorchLearner(normed, loss=F.cross_entropy, batch=4)
    delta = trees.flatten(fit(learner, learner.init(generator(0)), blobs(8, seed=0)).delta)
    assert delta["1.num_batches_tracked"] == 2
    assert delta["1.num_batches_tracked"].dtype == np.int64
    assert np.abs(delta["1.running_mean"]).max() > 0


def test_evaluation_neither_draws_nor_trains() -> None:
    learner = TorchLearner(normed, loss=F.cross_entropy)
    model, data = learner.init(generator(0)), blobs(8, seed=0)
    first = learner.evaluate(model, data)
    fit(learner, model, data)
    np.testing.assert_array_equal(learner.evaluate(model, data).scores, first.scores)


def test_tied_weights_stand_under_both_names_and_train_as_one() -> None:
    learner = TorchLearner(Tied, loss=F.mse_loss)
    model = learner.init(generator(0))
    data = rows(blobs(6, seed=0).x, np.zeros((6, 4), np.float32))
    delta = trees.flatten(fit(learner, model, data).delta)
    assert list(delta) == ["there.weight", "back.weight"]
    np.testing.assert_array_equal(delta["there.weight"], delta["back.weight"])


def test_bfloat16_leaves_stay_bfloat16() -> None:
    def net() -> nn.Module:
        return linear().to(torch.bfloat16)

    learner = TorchLearner(net, loss=F.cross_entropy)
    model, data = learner.init(generator(0)), blobs(8, seed=0)
    update = fit(learner, model, data)
    assert {leaf.dtype for _, leaf in trees.leaves(update.delta)} == {np.dtype(ml_dtypes.bfloat16)}
    assert trees.norm(update.delta) > 0
    assert learner.predict(model, data.x).dtype == np.float32


def test_boolean_buffers_say_which_entries_flipped() -> None:
    class Masked(nn.Module):
        mask: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.register_buffer("mask", torch.tensor([True, False, True, True]))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(x * self.mask)
            return out

    learner = TorchLearner(Masked, loss=F.cross_entropy)
    delta = trees.flatten(fit(learner, learner.init(generator(0)), blobs(8, seed=0)).delta)
    assert delta["mask"].tolist() == [False] * 4


def test_read_only_rows_and_weights_are_taken_without_a_copy_of_all() -> None:
    learner, data = TorchLearner(linear, loss=F.cross_entropy), blobs(8, seed=0)
    model = learner.init(generator(0))
    want = fit(learner, model, data).delta
    for array in (data.x, data.y, *trees.flatten(model).values()):
        array.setflags(write=False)
    assert trees.equal(fit(learner, model, data).delta, want)
    learner.evaluate(model, data)


@pytest.mark.parametrize(
    ("x", "want"),
    [
        (np.array([[200]], np.uint8), torch.float32),
        (np.array([[True]]), torch.float32),
        (np.array([[1.5]], np.float64), torch.float32),
        (np.array([[1.5]], ">f4"), torch.float32),
        (np.array([[3]], np.int32), torch.int64),
    ],
)
def test_rows_become_the_models_floats_and_only_wider_integers_stay_integers(x: Array, want: Any) -> None:
    class Spy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            assert x.dtype == want
            return super().forward(x.float())

    assert TorchLearner(lambda: Spy(1, 1), loss=F.mse_loss).predict({**W, "bias": np.zeros(1, np.float32)}, x)[0] == x[0, 0]


def test_scores_are_chosen_by_the_loss() -> None:
    data = rows(np.array([[0.0], [1.0]], np.float32), np.array([0, 1]))
    binary = TorchLearner(line, loss=F.binary_cross_entropy_with_logits).evaluate(W, data)
    np.testing.assert_allclose(binary.scores, [0.5, 1 / (1 + np.exp(-1))], rtol=1e-6)
    assert binary.loss == pytest.approx((np.log(2) + np.log1p(np.exp(-1))) / 2)
    value = TorchLearner(line, loss=nn.MSELoss()).evaluate(W, data)
    assert value.scores.tolist() == [0.0, 1.0]
    assert value.loss == 0.0
    smooth = functools.partial(F.cross_entropy, label_smoothing=0.1)
    classes = TorchLearner(linear, loss=smooth)
    scores = classes.predict(classes.init(generator(0)), np.ones((3, 4), np.float32))
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)
    assert TorchLearner(line, loss=F.mse_loss, scores="sigmoid").predict(W, np.zeros((1, 1), np.float32)).tolist() == [0.5]


def test_metrics_are_chosen_by_the_loss_unless_named() -> None:
    def own(output: Tensor, y: Tensor) -> Tensor:
        return (output - y).abs().mean()

    losses: list[tuple[Any, tuple[str, ...]]] = [
        (F.cross_entropy, ("loss", "accuracy")),
        (nn.BCEWithLogitsLoss(), ("loss", "accuracy", "auc")),
        (F.mse_loss, ("loss", "mse", "mae")),
        (own, ("loss",)),
    ]
    assert [TorchLearner(line, loss=loss).metrics for loss, _ in losses] == [metrics for _, metrics in losses]
    assert TorchLearner(line, loss=own, scores="softmax").metrics == ("loss", "accuracy")
    assert TorchLearner(line, loss=own, metrics=["auc"]).metrics == ("auc",)


def test_a_column_of_outputs_meets_a_vector_of_values_without_broadcasting() -> None:
    # Broadcast to (2, 2), the loss would be 0.5; row by row it is 0.
    data = rows(np.array([[0.0], [1.0]], np.float32), np.array([0.0, 1.0]))
    assert TorchLearner(line, loss=F.mse_loss).evaluate(W, data).loss == 0.0


def test_the_loss_is_a_mean_over_rows_whatever_the_passes() -> None:
    n = 1500  # two passes of 1024 and 476 rows
    data = rows(np.ones((n, 1), np.float32), np.arange(n, dtype=np.float32))
    want = np.mean((1 - np.arange(n)) ** 2)
    assert TorchLearner(line, loss=F.mse_loss).evaluate(W, data).loss == pytest.approx(want, rel=1e-5)


def test_a_loop_of_ones_own_is_given_the_filled_configuration_and_a_new_module() -> None:
    configs: list[FitConfig] = []

    def mine(module: nn.Module, data: Dataset, config: FitConfig) -> dict[str, float]:
        configs.append(config)
        assert module.training
        for p in module.parameters():
            p.data += 1.0
            p.requires_grad_(False)
        return {"loss": 0.25, "steps": 7}

    learner = TorchLearner(line, loss=F.mse_loss, lr=0.5, epochs=3, batch=2, fit=mine)
    data = rows(np.ones((5, 1), np.float32), np.zeros(5, np.float32))
    for _ in range(2):
        update = fit(learner, W, data, FitConfig(batch=4))
        assert trees.flatten(update.delta)["weight"].tolist() == [[1.0]]
        assert update[1:] == (5, 7, 0.5, 0.25)
    assert configs == [FitConfig(lr=0.5, epochs=3, batch=4)] * 2


@pytest.mark.parametrize(("said", "loss"), [(None, np.nan), (0.5, 0.5), (np.float32(0.5), 0.5), (torch.tensor(0.5), 0.5)])
def test_a_loop_of_ones_own_may_return_nothing_or_a_loss(said: Any, loss: float) -> None:
    learner = TorchLearner(line, loss=F.mse_loss, batch=2, fit=lambda module, data, config: said)
    update = fit(learner, W, rows(np.ones((5, 1), np.float32), np.zeros(5, np.float32)))
    np.testing.assert_equal((update.loss, update.steps, update.examples), (loss, 3, 5))


@pytest.mark.parametrize("said", [{"lost": 1.0}, "done"])
def test_a_loop_of_ones_own_that_returns_something_else_is_refused(said: Any) -> None:
    learner = TorchLearner(line, loss=F.mse_loss, fit=lambda module, data, config: said)
    with pytest.raises(ConfigError, match="fit"):
        fit(learner, W, rows(np.ones((5, 1), np.float32), np.zeros(5, np.float32)))


def test_threads_are_set_for_the_work_and_restored() -> None:
    seen: list[int] = []
    learner = TorchLearner(line, loss=F.mse_loss, threads=1, fit=lambda module, data, config: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        fit(learner, W, rows(np.ones((5, 1), np.float32), np.zeros(5, np.float32)))
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_a_learner_prints_its_settings_and_pickles_without_its_module() -> None:
    learner = TorchLearner(linear, loss=F.cross_entropy, lr=0.1, epochs=1, batch=32)
    assert repr(learner) == "TorchLearner(linear, loss=cross_entropy, lr=0.1, epochs=1, batch=32)"
    other = TorchLearner(
        linear, loss=nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0])), steps=5, optimizer="adam", scores="raw", metrics=["auc"]
    )
    assert repr(other) == (
        "TorchLearner(linear, loss=BCEWithLogitsLoss(pos_weight=[2.0]), lr=0.1, steps=5, batch=32, optimizer=adam, scores=raw, "
        "metrics=('auc',))"
    )
    smooth = functools.partial(F.cross_entropy, label_smoothing=0.1)
    assert "loss=partial(cross_entropy, label_smoothing=0.1)" in repr(TorchLearner(linear, loss=smooth))
    size = len(cloudpickle.dumps(learner))
    fit(learner, learner.init(generator(0)), blobs(8, seed=0))
    assert len(cloudpickle.dumps(learner)) == size
    assert isinstance(learner, BatchLearner)


def test_an_update_of_rows_with_nan_is_returned_for_the_gate_to_name() -> None:
    update = fit(TorchLearner(line, loss=F.mse_loss), W, rows(np.array([[np.nan]], np.float32), np.zeros(1, np.float32)))
    assert np.isnan(update.loss)
    assert np.isnan(trees.flatten(update.delta)["weight"]).all()


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"model": line()}, "model"),
        ({"loss": nn.MSELoss}, "loss"),
        ({"optimizer": "adagrad"}, "optimizer"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum"),
        ({"optimizer": torch.optim.RMSprop, "weight_decay": 0.1}, "weight_decay"),
        ({"momentum": 1.0}, "momentum"),
        ({"lr": -1.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"epochs": 0}, "epochs"),
        ({"steps": 0}, "steps"),
        ({"batch": -1}, "batch"),
        ({"device": "tpu"}, "device"),
        ({"threads": 0}, "threads"),
        ({"metrics": "auc"}, "metrics"),
        ({"scores": "logits"}, "scores"),
        ({"fit": "mine"}, "fit"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(settings: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TorchLearner(**{"model": line, "loss": F.mse_loss, **settings})
    assert caught.value.path == path


def slashed() -> nn.Module:
    module = nn.Module()
    module.add_module("a/b", nn.Linear(1, 1))
    return module


@pytest.mark.parametrize(
    ("net", "path"),
    [(slashed, "a/b.weight"), (lambda: nn.LazyLinear(2), "weight"), (lambda: "net", "model")],
)
def test_a_model_that_is_no_tree_is_refused_by_name(net: Any, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TorchLearner(net, loss=F.mse_loss).init(generator(0))
    assert caught.value.path == path


def test_a_model_without_a_parameter_to_train_is_refused() -> None:
    learner = TorchLearner(lambda: line().requires_grad_(False), loss=F.mse_loss)
    with pytest.raises(ConfigError, match="no parameter to train"):
        fit(learner, W, rows(np.ones((5, 1), np.float32), np.zeros(5, np.float32)))


def test_a_loss_that_is_no_scalar_and_an_output_that_is_no_tensor_are_refused() -> None:
    class Pair(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), x

    data = rows(np.ones((5, 1), np.float32), np.zeros(5, np.float32))
    with pytest.raises(ConfigError, match="scalar"):
        fit(TorchLearner(line, loss=functools.partial(F.mse_loss, reduction="none")), W, data)
    with pytest.raises(ConfigError, match="not a tensor"):
        TorchLearner(lambda: Pair(1, 1, bias=False), loss=F.mse_loss).predict(W, data.x)


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({}, "weight"),
        ({"weight": np.ones((1, 2), np.float32)}, "weight"),
        ({"weight": np.ones((1, 1))}, "weight"),
        ({**W, "bias": np.ones(1, np.float32)}, "bias"),
    ],
)
def test_a_tree_of_another_model_is_refused_by_its_leaf(wrong: Tree, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        TorchLearner(line, loss=F.mse_loss).predict(wrong, np.ones((1, 1), np.float32))
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("x", "y", "path"),
    [
        (np.array([["a"]]), np.array([0]), "x"),
        (np.ones((1, 4), np.float32), np.array(["cat"]), "y"),
        (np.ones((1, 4), np.float32), np.array([0.0]), "y"),
        (np.ones((2, 4), np.float32), np.array([0]), "y"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused_by_name(x: Array, y: Array, path: str) -> None:
    learner = TorchLearner(linear, loss=F.cross_entropy)
    with pytest.raises(DataError) as caught:
        fit(learner, learner.init(generator(0)), rows(x, y))
    assert caught.value.path == path


def test_an_abort_between_two_steps_is_heeded() -> None:
    abort = Signal()

    def loss(output: Tensor, y: Tensor) -> Tensor:
        abort.trigger("enough")
        return F.mse_loss(output[:, 0], y)

    data = rows(np.ones((5, 1), np.float32), np.zeros(5, np.float32))
    with pytest.raises(Aborted, match="enough"):
        TorchLearner(line, loss=loss).fit(W, data, FitConfig(epochs=2), rng=generator(0), abort=abort)


def test_without_torch_the_extra_is_named() -> None:
    code = "import sys; sys.modules['torch'] = None; import hansa.adapters.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError: torch is not installed (pip install 'hansa[torch]')" in done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_trains_what_the_cpu_trains() -> None:
    model, data = TorchLearner(mlp, loss=F.cross_entropy).init(generator(0)), blobs(24, seed=0)
    deltas = [fit(TorchLearner(mlp, loss=F.cross_entropy, device=device), model, data).delta for device in ("cpu", "cuda")]
    assert trees.norm(trees.subtract(*deltas)) <= 1e-4 * trees.norm(deltas[0])
    TorchLearner(mlp, loss=F.cross_entropy, device="cuda").evaluate(model, data)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such device here"):
        TorchLearner(line, loss=F.mse_loss, device="cuda").predict(W, np.ones((1, 1), np.float32))


def test_it_tells_its_step_rule_and_nothing_of_what_it_does_not_know() -> None:
    def rule(**settings: Any) -> str | None:
        return TorchLearner(line, loss=F.mse_loss, **settings).rule

    named = [rule(), rule(weight_decay=0.1), rule(momentum=0.9), rule(optimizer="adamw")]
    assert named == ["sgd", "sgd", "momentum", "adamw"]
    assert rule(optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr)) is None
    assert rule(fit=lambda module, data, config: None) is None


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("proximal", FitConfig(proximal=0.1)),
        ("clip", FitConfig(clip=1.0)),
        ("correction", FitConfig(correction={"weight": np.zeros((1, 1), np.float32)})),
    ],
)
def test_a_loop_of_ones_own_honours_what_it_says_and_nothing_else_may_be_asked_of_it(name: str, config: FitConfig) -> None:
    seen: list[FitConfig] = []

    def mine(module: nn.Module, data: Dataset, config: FitConfig) -> None:
        seen.append(config)

    options: dict[str, Any] = {"loss": F.mse_loss, "fit": mine}
    model = TorchLearner(line, **options).init(generator(0))
    rows = Rows(np.ones((2, 1), np.float32), np.ones((2, 1), np.float32))
    with pytest.raises(ConfigError, match=f"honours=\\('{name}',\\)") as caught:
        TorchLearner(line, **options).fit(model, rows, config, rng=generator(0), abort=Signal())
    assert caught.value.path == name
    assert not seen
    learner = TorchLearner(line, **options, honours=[name])
    learner.fit(model, rows, config, rng=generator(0), abort=Signal())
    assert getattr(seen[0], name) == getattr(config, name)
    assert f"honours=('{name}',)" in repr(learner)


def test_a_loss_that_hangs_on_its_graph_is_taken_as_a_number() -> None:
    def mine(module: nn.Module, data: Dataset, config: FitConfig) -> Any:
        loss = module(torch.ones(1, 1)).sum() * 0 + 2
        return loss if config.steps == 1 else {"loss": loss}

    learner = TorchLearner(line, loss=F.mse_loss, fit=mine)
    rows = Rows(np.ones((2, 1), np.float32), np.ones((2, 1), np.float32))
    for steps in (1, 2):
        asked = FitConfig(steps=steps)
        assert learner.fit(learner.init(generator(0)), rows, asked, rng=generator(0), abort=Signal()).loss == 2.0


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"honours": "clip", "fit": print}, "honours"),
        ({"honours": ["clop"], "fit": print}, "honours"),
        ({"honours": ["clip"]}, "honours"),
        ({"epochs": 1, "steps": 1}, "steps"),
    ],
)
def test_what_a_learner_cannot_be_made_of_is_named(options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TorchLearner(line, loss=F.mse_loss, **options)
    assert caught.value.path == path
