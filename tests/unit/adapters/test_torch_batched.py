"""fit_many: each client gets what it gets alone; what cannot be batched is refused, and says why."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from torch import Tensor, nn  # noqa: E402  after importorskip
from torch.nn import functional as F  # noqa: E402, N812  torch's own convention

from hansa.adapters.torch import TorchLearner, batched  # noqa: E402
from hansa.core import trees  # noqa: E402
from hansa.core.protocols import Dataset, FitConfig, Update  # noqa: E402
from hansa.core.rng import generator  # noqa: E402
from hansa.core.task import Signal  # noqa: E402
from hansa.core.trees import Tree  # noqa: E402
from hansa.errors import ConfigError, DataError  # noqa: E402
from hansa.testing.contracts import SplitRows, blobs  # noqa: E402

SIZES = (9, 20, 3, 1)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 4)),
        nn.Conv1d(1, 3, 3, padding="same"),
        nn.ReLU(inplace=True),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(6, 2),
    )


class Tied(nn.Module):
    """Tied weights, a frozen layer, a constant buffer and a parameter without a part in the loss."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.there = nn.Linear(4, 4, bias=False)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.back = nn.Linear(4, 4, bias=False)
        self.back.weight = self.there.weight
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("scale", torch.full((), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.back(self.frozen(torch.tanh(self.there(x))))
        return out * self.scale


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.embedding(x).mean(1))
        return out


def together(
    learner: TorchLearner, models: Sequence[Tree], data: Sequence[Dataset], configs: Sequence[FitConfig] | None = None
) -> Sequence[Update]:
    each = configs or [FitConfig()] * len(data)
    return learner.fit_many(models, data, each, rngs=[generator(5, slot=i) for i in range(len(data))])


def alone(
    learner: TorchLearner, models: Sequence[Tree], data: Sequence[Dataset], configs: Sequence[FitConfig] | None = None
) -> list[Update]:
    each = configs or [FitConfig()] * len(data)
    return [
        learner.fit(model, part, config, rng=generator(5, slot=i), abort=Signal())
        for i, (model, part, config) in enumerate(zip(models, data, each, strict=True))
    ]


def agree(batch: Sequence[Update], loop: Sequence[Update]) -> None:
    for ours, want in zip(batch, loop, strict=True):
        assert ours[1:4] == want[1:4]
        assert ours.loss == pytest.approx(want.loss, rel=1e-4)
        trees.Spec.of(want.delta).check(ours.delta)
        assert trees.norm(trees.subtract(ours.delta, want.delta)) <= 1e-5 * trees.norm(want.delta)


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9, "weight_decay": 0.01},
        {"optimizer": "adam", "weight_decay": 0.01, "lr": 0.01},
        {"optimizer": "adamw", "weight_decay": 0.01, "lr": 0.01},
    ],
)
@pytest.mark.parametrize("net", [linear, cnn])
def test_each_step_rule_gives_what_each_client_gets_alone(net: Any, settings: dict[str, Any]) -> None:
    learner = TorchLearner(net, loss=F.cross_entropy, epochs=3, batch=4, **settings)
    model, data = learner.init(generator(0)), [blobs(n, seed=n) for n in SIZES]
    config = FitConfig(clip=0.5, proximal=0.1)
    agree(together(learner, [model] * 4, data, [config] * 4), alone(learner, [model] * 4, data, [config] * 4))


@pytest.mark.parametrize("shared", [True, False])
def test_tied_frozen_and_unused_leaves_are_as_in_the_loop(shared: bool) -> None:
    learner = TorchLearner(Tied, loss=F.mse_loss, lr=0.05, epochs=2, batch=4, optimizer="adamw", weight_decay=0.1)
    models = [learner.init(generator(0 if shared else i)) for i in range(len(SIZES))]
    models = models[:1] * len(SIZES) if shared else models
    data = [SplitRows(blobs(n, seed=n).x, np.tanh(blobs(n, seed=n).x), n) for n in SIZES]
    updates = together(learner, models, data)
    agree(updates, alone(learner, models, data))
    assert not np.any(trees.flatten(updates[0].delta)["unused"])


def test_token_ids_and_a_loss_module_are_batched() -> None:
    learner = TorchLearner(Words, loss=nn.CrossEntropyLoss(label_smoothing=0.1), epochs=2, batch=4)
    model = learner.init(generator(0))
    data = [SplitRows(generator(n).integers(0, 5, (n, 6)), np.arange(n) % 2, n) for n in SIZES]
    agree(together(learner, [model] * 4, data), alone(learner, [model] * 4, data))


def test_a_loss_of_ones_own_with_a_reduction_is_batched() -> None:
    def own(output: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        each = (output - y).abs()
        return each.mean() if reduction == "mean" else each

    learner = TorchLearner(lambda: nn.Linear(4, 3), loss=own, batch=4)
    model = learner.init(generator(0))
    data = [SplitRows(blobs(n, seed=n).x, blobs(n, seed=n).x[:, :3], n) for n in SIZES]
    agree(together(learner, [model] * 4, data), alone(learner, [model] * 4, data))


def test_clients_that_do_not_fit_together_are_trained_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = TorchLearner(linear, loss=F.cross_entropy, batch=4)
    models, data = [learner.init(generator(i)) for i in range(4)], [blobs(n, seed=n) for n in SIZES]
    whole = together(learner, models, data)
    monkeypatch.setattr(batched, "_CHUNK_BYTES", 1)
    agree(together(learner, models, data), whole)


def test_no_clients_have_no_updates() -> None:
    assert TorchLearner(linear, loss=F.cross_entropy).fit_many([], [], [], rngs=[]) == []


def own_loss(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output, y)


def doubled(output: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(output, y, reduction=reduction) * (2 if reduction == "mean" else 1)


class Noting(nn.Linear):
    """Its training changes a buffer."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = x.detach().mean(0)
        return super().forward(x)


class Deciding(nn.Linear):
    """What it computes depends on its values."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"fit": lambda module, data, config: None}, "loop of your own"),
        ({"optimizer": torch.optim.RMSprop}, "your own optimizer"),
        ({"loss": own_loss}, "reduction='none'"),
        ({"loss": doubled}, "not the mean"),
        ({"loss": nn.CrossEntropyLoss(weight=torch.ones(2))}, "weighted loss"),
        ({"loss": functools.partial(F.cross_entropy, reduction="sum")}, "need a mean"),
        ({"loss": functools.partial(F.cross_entropy, ignore_index=1)}, "a label that the loss ignores"),
        ({"model": lambda: nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))}, "batch normalisation"),
        ({"model": lambda: nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))}, "draws random numbers"),
        ({"model": Noting}, "changes a buffer"),
        ({"model": lambda: Deciding(4, 2)}, "this model cannot be batched: vmap"),
        ({"model": lambda: torch.jit.trace(nn.Linear(4, 2), torch.ones(1, 4))}, "this model cannot be batched: The stateless API"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")  # deprecated, and still found in people's models
def test_what_cannot_be_batched_is_refused_and_says_why(settings: dict[str, Any], why: str) -> None:
    learner = TorchLearner(**{"model": linear, "loss": F.cross_entropy, **settings})
    model = learner.init(generator(0))
    with pytest.raises(ConfigError, match=why):
        together(learner, [model] * 2, [blobs(4, seed=0)] * 2)


def test_configs_may_differ_in_lr_and_correction_alone() -> None:
    learner = TorchLearner(linear, loss=F.cross_entropy)
    model = learner.init(generator(0))
    with pytest.raises(ConfigError, match="lr and correction alone") as caught:
        together(learner, [model] * 2, [blobs(4, seed=0)] * 2, [FitConfig(batch=2), FitConfig(batch=4)])
    assert caught.value.path == "batch"


def test_rows_of_two_kinds_are_refused() -> None:
    learner = TorchLearner(linear, loss=F.cross_entropy)
    model, first = learner.init(generator(0)), blobs(4, seed=0)
    with pytest.raises(DataError, match="rows of one kind"):
        together(learner, [model] * 2, [first, SplitRows(first.x.astype(np.float64), first.y, 4)])
