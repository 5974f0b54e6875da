import math

import numpy as np
import pytest

from hansa.core import trees
from hansa.core.protocols import Clock, Dataset, FitConfig, Learner, SiteMemory
from hansa.core.rng import generator
from hansa.core.task import Aborted, Signal
from hansa.testing.clock import FakeClock
from hansa.testing.fakes import ConstantLearner, InMemorySiteMemory, rows

DELTA = {"w": np.array([1.0, -2.0], np.float32), "n": np.array(3)}


def test_rows_are_a_dataset_that_is_the_same_for_the_same_seed() -> None:
    data: Dataset = rows(10, d=3, classes=4, seed=1, valid=2, test=3)
    assert isinstance(data, Dataset)
    assert (data.x.shape, data.y.shape) == ((10, 3), (10,))
    assert (data.x.dtype.name, data.y.dtype.name) == ("float32", "int64")
    assert set(data.y.tolist()) <= {0, 1, 2, 3}
    assert [len(data.part(name)) for name in ("train", "valid", "test")] == [5, 2, 3]
    assert data.x.tobytes() == rows(10, d=3, classes=4, seed=1).x.tobytes() != rows(10, d=3, classes=4, seed=2).x.tobytes()


def test_site_memory_keeps_what_was_put_only_when_it_is_committed() -> None:
    memory = InMemorySiteMemory()
    seam: SiteMemory = memory
    control = {"w": np.zeros(2)}
    seam.put("control", control)
    control["w"][0] = 9.0  # the memory has a copy
    assert trees.equal(seam.get("control") or {}, {"w": np.zeros(2)})
    memory.rollback()
    assert seam.get("control") is None
    seam.put("control", {"w": np.ones(2)})
    memory.commit()
    memory.rollback()
    assert trees.equal(seam.get("control") or {}, {"w": np.ones(2)})


def test_a_constant_learner_gives_the_same_update_for_every_site() -> None:
    learner: Learner = ConstantLearner(DELTA, loss=0.25)
    model = learner.init(generator(0))
    assert trees.equal(model, {"w": np.zeros(2, np.float32), "n": np.array(0)})
    update = learner.fit(model, rows(7), FitConfig(lr=0.1), rng=generator(0), abort=Signal())
    assert trees.equal(update.delta, DELTA)
    assert (update.examples, update.steps, update.lr, update.loss) == (7, 1, 0.1, 0.25)
    scores, loss = learner.evaluate(model, rows(7))
    assert (scores.tolist(), loss) == ([0.0] * 7, 0.25)
    assert math.isnan(learner.evaluate(model, rows(7).part("test")).loss)


def test_a_constant_learner_stops_when_it_is_asked_to() -> None:
    abort = Signal()
    abort.trigger("enough")
    with pytest.raises(Aborted, match="enough"):
        ConstantLearner(DELTA).fit(DELTA, rows(3), FitConfig(), rng=generator(0), abort=abort)


def test_the_fake_clock_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock(5.0)
    seam: Clock = clock
    assert seam.now() == seam.now() == 5.0
    clock.advance(1.5)
    assert seam.now() == 6.5
