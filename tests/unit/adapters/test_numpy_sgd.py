import numpy as np
import pytest

from hansa.adapters.numpy import mlp, sgd, softmax
from hansa.adapters.numpy.nets import Net
from hansa.adapters.numpy.settings import Settings
from hansa.core import trees
from hansa.core.protocols import FitConfig
from hansa.core.rng import generator
from hansa.core.task import Signal
from hansa.errors import ConfigError, DataError
from hansa.testing.contracts import SplitRows, blobs

FLOAT32 = np.dtype(np.float32)


def test_a_schedule_pads_the_short_batch_with_rows_that_count_nothing() -> None:
    order, share = sgd.schedule(5, Settings(batch=3, epochs=2), generator(1), FLOAT32)
    rng = generator(1)
    np.testing.assert_array_equal(order, np.concatenate([[*rng.permutation(5), 0] for _ in range(2)]).reshape(4, 3))
    third, half = np.float32(1 / 3), np.float32(0.5)
    np.testing.assert_array_equal(share, [[third] * 3, [half, half, 0]] * 2)


def test_steps_end_a_schedule_in_the_middle_of_an_epoch() -> None:
    order, share = sgd.schedule(4, Settings(batch=2, steps=3), generator(1), FLOAT32)
    assert order.shape == share.shape == (3, 2)


def test_all_rows_at_once_keep_their_order_whatever_the_stream() -> None:
    order, share = sgd.schedule(3, Settings(batch=0), generator(1), FLOAT32)
    np.testing.assert_array_equal(order, [[0, 1, 2]])
    np.testing.assert_allclose(share.sum(), 1.0)


def test_a_group_holds_batches_within_a_factor_of_two_and_the_longest_training_first() -> None:
    model = softmax(2, 4).init(generator(0))
    net = Net.of(model, prefixes=("",), head="softmax")
    sizes = (40, 3, 16, 33, 9, 64, 4)
    settings = Settings(batch=16, epochs=1)
    clients = [sgd.Client.of(net, model, blobs(n, seed=n), settings, generator(n), dtype=FLOAT32) for n in sizes]
    found = [[sizes[i] for i in group] for group in sgd.groups(net, clients, FLOAT32)]
    assert found == [[64, 40, 33, 16, 9], [3, 4]]


def test_groups_and_windows_of_any_size_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, sizes = mlp((5,), classes=2, features=4, batch=4, epochs=3), (9, 20, 3, 12)
    model = learner.init(generator(0))

    def fit() -> list[trees.Tree]:
        rngs = [generator(2, slot=i) for i in range(4)]
        datasets = [blobs(n, seed=n) for n in sizes]
        return [update.delta for update in learner.fit_many([model] * 4, datasets, [FitConfig()] * 4, rngs=rngs)]

    wide = fit()
    monkeypatch.setattr(sgd, "_GROUP_BYTES", 1)
    monkeypatch.setattr(sgd, "_WINDOW_BYTES", 1)
    assert all(trees.equal(a, b) for a, b in zip(wide, fit(), strict=True))


def test_no_clients_have_no_updates() -> None:
    assert softmax(2, 4).fit_many([], [], [], rngs=[]) == []


def test_a_client_at_fault_is_named_by_its_place() -> None:
    learner = softmax(2, 4)
    datasets = [blobs(4, seed=0), SplitRows(np.zeros((0, 4)), np.zeros(0), 0)]
    with pytest.raises(DataError, match="client 1 train"):
        learner.fit_many([learner.init(generator(0))] * 2, datasets, [FitConfig()] * 2, rngs=[generator(0), generator(1)])


def test_clients_fitted_together_may_not_differ_in_other_settings() -> None:
    learner = softmax(2, 4)
    configs = [FitConfig(epochs=1), FitConfig(epochs=2)]
    with pytest.raises(ConfigError, match="path epochs"):
        learner.fit_many([learner.init(generator(0))] * 2, [blobs(4, seed=0)] * 2, configs, rngs=[generator(0), generator(1)])


def test_an_update_does_not_share_memory_with_the_model_or_with_another() -> None:
    learner = softmax(2, 4)
    model = learner.init(generator(0))
    config = [FitConfig()] * 2
    one, two = learner.fit_many([model] * 2, [blobs(4, seed=0), blobs(4, seed=1)], config, rngs=[generator(0), generator(1)])
    before = trees.copy(two.delta)
    for _, leaf in trees.leaves(one.delta):
        leaf += 1.0
    assert trees.equal(two.delta, before)
    assert all(not leaf.any() for _, leaf in trees.leaves(model))


def test_the_optimizers_train_together_as_alone() -> None:
    for learner in (
        mlp((5,), classes=2, features=4, optimizer="adam", lr=0.01, l2=0.1),
        softmax(2, 4, momentum=0.9, l2=0.1),
    ):
        model, datasets = learner.init(generator(0)), [blobs(n, seed=n) for n in (9, 20, 3)]
        config = FitConfig(epochs=3, batch=4)
        together = learner.fit_many([model] * 3, datasets, [config] * 3, rngs=[generator(1, slot=i) for i in range(3)])
        for i, data in enumerate(datasets):
            alone = learner.fit(model, data, config, rng=generator(1, slot=i), abort=Signal())
            assert trees.norm(trees.subtract(together[i].delta, alone.delta)) <= 1e-5 * trees.norm(alone.delta)
