"""Suites that say when an implementation of one of Hansa's protocols is done: inherit one, fill in its hooks, run pytest."""

# ruff: noqa: S101  assertions are what a suite is made of

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle  # type: ignore[import-untyped,unused-ignore]  # it ships no types
import numpy as np

from hansa.core import trees
from hansa.core.protocols import BatchLearner, Dataset, Evaluation, FitConfig, Learner, Part, Update
from hansa.core.rng import generator
from hansa.core.task import Aborted, Signal
from hansa.core.trees import Array, Spec, Tree
from hansa.errors import DataError, HansaError


@dataclass(frozen=True)
class SplitRows:
    """A Dataset whose first `train` rows are its training part; the rest are its test part, and the valid part is empty."""

    x: Array
    y: Array
    train: int

    def __len__(self) -> int:
        return len(self.x)

    def part(self, name: Part) -> Dataset:
        """The rows of one part; all of them are its training part again."""
        first, last = {"train": (0, self.train), "valid": (0, 0), "test": (self.train, len(self.x))}[name]
        return SplitRows(self.x[first:last], self.y[first:last], last - first)


def blobs(rows: int, *, seed: int, features: int = 4, train: int | None = None) -> SplitRows:
    """Two overlapping classes: `x` (rows, features) float32 and `y` (rows,) int64, both labels present when rows >= 2."""
    rng = generator(seed, purpose="blobs")
    y = np.arange(rows, dtype=np.int64) % 2
    x = rng.normal(size=(rows, features)).astype(np.float32) + y[:, None].astype(np.float32)
    return SplitRows(x, y, rows if train is None else train)


class LearnerContract(ABC):
    """What every Learner must do. `learner()` gives one with plain SGD: no momentum, no weight decay, no dropout, lr 0.1.

    The data are two classes in four float32 features with int64 labels; override `data` where the learner takes something else.
    A learner that cannot serve `proximal`, `correction` or `clip` says so in `refuses`; asking for it must then raise.

    >>> class TestMine(LearnerContract):
    ...     def learner(self):
    ...         return my_learner(lr=0.1)
    """

    refuses: tuple[str, ...] = ()

    @abstractmethod
    def learner(self) -> Learner:
        """A new learner; called several times, and each must behave the same."""

    def data(self, rows: int, *, seed: int = 0, train: int | None = None) -> Dataset:
        """One site's rows; the first `train` (default all) are for training."""
        return blobs(rows, seed=seed, train=train)

    def start(self, learner: Learner) -> Tree:
        """The model that the tests begin from."""
        return learner.init(generator(3, purpose="init"))

    def fit(self, config: FitConfig, *, data: Dataset | None = None, seed: int = 1) -> Update:
        """One local training of a new learner from `start`."""
        learner = self.learner()
        rows = self.data(24) if data is None else data
        return learner.fit(self.start(learner), rows, config, rng=generator(seed, purpose="fit"), abort=Signal())

    def test_the_same_stream_gives_the_same_initial_model(self) -> None:
        assert trees.equal(self.start(self.learner()), self.start(self.learner()))

    def test_any_stream_gives_a_model_of_the_same_spec(self) -> None:
        learner = self.learner()
        assert Spec.of(learner.init(generator(1))) == Spec.of(learner.init(generator(2)))

    def test_fitting_twice_gives_the_same_bits_whatever_was_fitted_between(self) -> None:
        learner = self.learner()
        model, config = self.start(learner), FitConfig(epochs=2, batch=5)

        def fit(data: Dataset) -> Update:
            return learner.fit(model, data, config, rng=generator(1), abort=Signal())

        first = fit(self.data(24))
        fit(self.data(17, seed=9))
        again = fit(self.data(24))
        assert trees.equal(first.delta, again.delta)
        assert first[1:] == again[1:]

    def test_fitting_and_evaluating_leave_the_model_and_the_data_alone(self) -> None:
        learner = self.learner()
        model, data = self.start(learner), self.data(24)
        before, x, y = trees.copy(model), data.x.copy(), data.y.copy()
        learner.fit(model, data, FitConfig(epochs=2, batch=5), rng=generator(1), abort=Signal())
        learner.evaluate(model, data)
        assert trees.equal(model, before)
        np.testing.assert_array_equal(data.x, x)
        np.testing.assert_array_equal(data.y, y)

    def test_an_update_has_the_leaves_of_the_model(self) -> None:
        update = self.fit(FitConfig())
        Spec.of(self.start(self.learner())).check(update.delta)
        assert trees.norm(update.delta) > 0

    def test_epochs_take_a_step_for_each_batch_and_the_last_batch_is_short(self) -> None:
        update = self.fit(FitConfig(epochs=2, batch=10))
        assert (update.examples, update.steps) == (24, 6)
        assert math.isfinite(update.loss)

    def test_steps_win_over_epochs_and_draw_epochs_until_they_are_done(self) -> None:
        update = self.fit(FitConfig(epochs=1, steps=7, batch=10))
        assert (update.examples, update.steps) == (24, 7)

    def test_batch_zero_takes_all_rows_at_once(self) -> None:
        assert self.fit(FitConfig(epochs=3, batch=0)).steps == 3

    def test_only_the_training_part_is_fitted(self) -> None:
        whole = self.data(24, train=16)
        update = self.fit(FitConfig(epochs=1, batch=0), data=whole)
        assert update.examples == 16
        assert trees.equal(update.delta, self.fit(FitConfig(epochs=1, batch=0), data=whole.part("train")).delta)

    def test_the_algorithms_step_size_is_used_and_reported(self) -> None:
        small, large = self.fit(FitConfig(lr=0.0002, steps=1, batch=0)), self.fit(FitConfig(lr=0.0008, steps=1, batch=0))
        assert (small.lr, large.lr) == (0.0002, 0.0008)
        assert math.isclose(trees.norm(large.delta), 4 * trees.norm(small.delta), rel_tol=5e-2)

    def test_training_lowers_the_loss(self) -> None:
        learner = self.learner()
        model, data = self.start(learner), self.data(24)
        update = learner.fit(model, data, FitConfig(lr=0.05, epochs=20, batch=8), rng=generator(1), abort=Signal())
        after = trees.add(model, update.delta)
        assert learner.evaluate(after, data).loss < learner.evaluate(model, data).loss

    def test_a_steps_gradient_is_scaled_down_to_the_clip(self) -> None:
        config = FitConfig(lr=0.1, steps=1, batch=0, clip=1e-3)
        if self._refused("clip", config):
            return
        # The whole of the gradient is clipped, what the algorithm adds to it included.
        if "correction" not in self.refuses:
            config = replace(config, correction=trees.map(np.ones_like, self._floats(self.start(self.learner()))))
        assert math.isclose(trees.norm(self._floats(self.fit(config).delta)), 1e-4, rel_tol=1e-2)

    def test_a_wide_clip_changes_nothing(self) -> None:
        config = FitConfig(steps=3, batch=10, clip=1e6)
        if not self._refused("clip", config):
            self._close(self.fit(config).delta, self.fit(replace(config, clip=None)).delta, tolerance=1e-5)

    def test_a_proximal_term_pulls_back_to_the_model_that_was_sent(self) -> None:
        # Two full-batch steps: w2 - w0 = -lr (g(w0) + g(w1) + mu (w1 - w0)), and w1 does not depend on mu.
        config = FitConfig(lr=0.1, steps=2, batch=0, proximal=0.5)
        if self._refused("proximal", config):
            return
        one = self.fit(FitConfig(lr=0.1, steps=1, batch=0)).delta
        free = self.fit(replace(config, proximal=0.0)).delta
        want = trees.map(lambda f, d: f - 0.1 * 0.5 * d, self._floats(free), self._floats(one))
        self._close(self._floats(self.fit(config).delta), want, tolerance=1e-4)

    def test_a_correction_is_added_to_each_gradient(self) -> None:
        # One full-batch step: the update moves by -lr times the correction. Leaves that are not in it get nothing.
        start = self._floats(self.start(self.learner()))
        path = next(iter(trees.flatten(start)))
        config = FitConfig(lr=0.1, steps=1, batch=0, correction={path: np.full_like(trees.flatten(start)[path], 0.5)})
        if self._refused("correction", config):
            return
        free = trees.flatten(self._floats(self.fit(replace(config, correction=None)).delta))
        moved = {name: leaf - (0.05 if name == path else 0.0) for name, leaf in free.items()}
        self._close(trees.flatten(self._floats(self.fit(config).delta)), moved, tolerance=1e-4)

    def test_an_abort_stops_the_training(self) -> None:
        learner, abort = self.learner(), Signal()
        abort.trigger("test")
        with raises(Aborted):
            learner.fit(self.start(learner), self.data(24), FitConfig(), rng=generator(1), abort=abort)

    def test_an_empty_training_part_is_an_error_that_says_so(self) -> None:
        with raises(DataError, match="train"):
            self.fit(FitConfig(), data=self.data(4, train=0))

    def test_an_evaluation_scores_each_row_and_is_what_predict_gives(self) -> None:
        learner, data = self.learner(), self.data(24)
        model = self.start(learner)
        evaluation = learner.evaluate(model, data)
        assert isinstance(evaluation, Evaluation)
        assert len(evaluation.scores) == 24
        assert math.isfinite(evaluation.loss)
        np.testing.assert_array_equal(learner.predict(model, data.x), evaluation.scores)

    def test_no_rows_have_no_scores_and_a_loss_of_nan(self) -> None:
        learner = self.learner()
        evaluation = learner.evaluate(self.start(learner), self.data(4, train=4).part("valid"))
        assert len(evaluation.scores) == 0
        assert math.isnan(evaluation.loss)

    def test_a_pickled_learner_fits_the_same_bits(self) -> None:
        learner = self.learner()
        model = self.start(learner)
        learner.fit(model, self.data(24), FitConfig(), rng=generator(1), abort=Signal())
        twin: Learner = cloudpickle.loads(cloudpickle.dumps(learner))
        update = twin.fit(model, self.data(24), FitConfig(), rng=generator(1), abort=Signal())
        assert trees.equal(update.delta, self.fit_of(learner, model).delta)

    def fit_of(self, learner: Learner, model: Tree) -> Update:
        """One default training of a learner that already exists."""
        return learner.fit(model, self.data(24), FitConfig(), rng=generator(1), abort=Signal())

    def test_it_prints_on_one_short_line(self) -> None:
        text = repr(self.learner())
        assert len(text) <= 200, text
        assert "\n" not in text
        assert " at 0x" not in text, "an address differs from run to run, and a plan is hashed"
        assert text == repr(self.learner())

    def test_it_names_the_metrics_it_reports(self) -> None:
        metrics = self.learner().metrics
        assert metrics
        assert all(isinstance(name, str) for name in metrics)

    def test_clients_fitted_together_get_what_each_gets_alone(self) -> None:
        model, sizes = self.start(self.learner()), (24, 7, 1, 24, 13)
        for config in (FitConfig(epochs=2, batch=5), FitConfig(steps=4, batch=10), FitConfig(epochs=2, batch=0)):
            self._together([model] * len(sizes), sizes, [config] * len(sizes))

    def test_clients_fitted_together_keep_their_own_models_step_sizes_and_corrections(self) -> None:
        learner, sizes = self.learner(), (9, 20, 3)
        models = [learner.init(generator(seed)) for seed in range(3)]
        configs = [FitConfig(lr=lr, epochs=2, batch=4) for lr in (0.01, 0.1, 0.3)]
        if "correction" not in self.refuses:
            configs[1] = replace(configs[1], correction=trees.map(lambda a: 0.1 * np.ones_like(a), self._floats(models[1])))
        self._together(models, sizes, configs)

    def test_clients_fitted_together_are_clipped_and_pulled_each_on_its_own(self) -> None:
        if not {"clip", "proximal"} & set(self.refuses):
            config = FitConfig(epochs=3, batch=4, clip=0.2, proximal=0.3)
            self._together([self.start(self.learner())] * 3, (9, 20, 3), [config] * 3)

    def test_clients_fitted_together_get_the_same_bits_each_time(self) -> None:
        if isinstance(learner := self.learner(), BatchLearner):
            models, sizes, configs = [self.start(learner)] * 3, (9, 20, 3), [FitConfig(epochs=2, batch=4)] * 3
            first, again = (self._fit_many(learner, models, sizes, configs) for _ in range(2))
            assert all(trees.equal(a.delta, b.delta) and a[1:] == b[1:] for a, b in zip(first, again, strict=True))

    def _together(self, models: Sequence[Tree], sizes: Sequence[int], configs: Sequence[FitConfig]) -> None:
        learner = self.learner()
        if not isinstance(learner, BatchLearner):
            return
        together = self._fit_many(learner, models, sizes, configs)
        for i, (model, size, config) in enumerate(zip(models, sizes, configs, strict=True)):
            alone = learner.fit(model, self.data(size, seed=i), config, rng=generator(5, slot=i), abort=Signal())
            assert together[i][1:4] == alone[1:4]
            assert math.isclose(together[i].loss, alone.loss, rel_tol=1e-4)
            Spec.of(model).check(together[i].delta)
            self._close(together[i].delta, alone.delta, tolerance=1e-5)

    def _fit_many(
        self, learner: BatchLearner, models: Sequence[Tree], sizes: Sequence[int], configs: Sequence[FitConfig]
    ) -> Sequence[Update]:
        datasets = [self.data(size, seed=i) for i, size in enumerate(sizes)]
        return learner.fit_many(models, datasets, configs, rngs=[generator(5, slot=i) for i in range(len(sizes))])

    def _refused(self, setting: str, config: FitConfig) -> bool:
        """Whether the learner does not serve a setting; it must then say so, and name it."""
        if setting not in self.refuses:
            return False
        with raises(HansaError, match=setting):
            self.fit(config)
        return True

    @staticmethod
    def _floats(tree: Tree) -> dict[str, Any]:
        return trees.unflatten({path: leaf for path, leaf in trees.leaves(tree) if np.issubdtype(leaf.dtype, np.floating)})

    @staticmethod
    def _close(got: Tree, want: Tree, *, tolerance: float) -> None:
        """Assert that the distance over all leaves is at most `tolerance` of what is wanted."""
        distance, size = trees.norm(trees.map(np.subtract, got, want)), trees.norm(want)
        assert distance <= tolerance * size, f"relative distance {distance / size:.2e}"


class raises:  # noqa: N801  reads as pytest.raises, which users without pytest lack
    """A context that fails unless its block raises `kind` with `match` somewhere in the message."""

    def __init__(self, kind: type[Exception], *, match: str = "") -> None:
        self.kind, self.match = kind, match

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        assert error is not None, f"{self.kind.__name__} was not raised"
        if not isinstance(error, self.kind):
            return False
        assert self.match in str(error), f"{self.match!r} is not in {str(error)!r}"
        return True


__all__ = ["LearnerContract", "SplitRows", "blobs"]
