"""Imputing and scaling by a federated statistics round."""

import numpy as np
import pytest
from tests.unit.learning.linear import Linear, Loss, Recorded, models, site

from hansa.adapters.numpy import logistic
from hansa.core import trees
from hansa.core.protocols import Dataset
from hansa.core.run import run
from hansa.core.trees import Tree
from hansa.data.datasets import heart
from hansa.data.federated import pool
from hansa.data.partition import column
from hansa.data.rows import Rows
from hansa.errors import DataError, SpecError
from hansa.learning.fedavg import fedavg
from hansa.learning.scaffold import scaffold
from hansa.learning.standardise import MEAN, SCALE, Moments, Standardised, joined, moments_of, prepare, with_statistics

SITES = [
    Rows(np.array([[1.0, np.nan], [3.0, 10.0]]), np.array([0.0, 1.0])),
    Rows(np.array([[8.0, 20.0]]), np.array([1.0])),
]


def statistics(job_data: list[Dataset], learner: object = None) -> Tree:
    job = fedavg(Linear() if learner is None else learner, rounds=1, standardise=True, metrics=[Loss()])  # type: ignore[arg-type]
    state = job.process.initialize(job_data)
    return trees.split(state.model, [MEAN, SCALE])[0]


def test_the_statistics_are_those_of_all_known_entries_by_hand() -> None:
    found = statistics(list(SITES))
    assert np.asarray(found[MEAN]) == pytest.approx([4.0, 15.0])
    assert np.asarray(found[SCALE]) == pytest.approx([np.sqrt((9 + 1 + 16) / 3), 5.0])


def test_a_site_sends_three_numbers_a_column_and_no_row() -> None:
    f = Recorded(SITES, fedavg(Linear(), rounds=1, standardise=True, metrics=[], evaluate_sites="none"))
    f.run()
    (first, *_), name = f.came, f.sent[0][0]
    assert name == "feature_moments"
    assert sorted(path for path, _ in trees.leaves(first[2].body)) == [f"feature_moments/{n}" for n in ("count", "mean", "squares")]


def test_hospitals_statistics_equal_the_pooled_ones_to_rounding() -> None:
    hospitals = column(heart())
    learner = logistic(features=22)
    found = statistics([hospitals.load(slot) for slot in range(4)], learner)
    together = pool(hospitals).load(0).part("train").x.astype(np.float64)
    np.testing.assert_allclose(np.asarray(found[MEAN]), np.nanmean(together, axis=0), rtol=1e-13)
    np.testing.assert_allclose(np.asarray(found[SCALE]), np.nanstd(together, axis=0), rtol=1e-13)


def test_columns_far_from_zero_keep_their_digits() -> None:
    x = 1e9 + np.array([0.0, 1.0, 2.0, 3.0])
    parts = [Rows(x[:1, None], np.zeros(1)), Rows(x[1:, None], np.zeros(3))]
    found = with_statistics({}, joined(moments_of(parts[0]), moments_of(parts[1])))
    assert np.asarray(found[SCALE]) == pytest.approx([np.sqrt(1.25)], rel=1e-12)
    ready = prepare(x[:, None], np.asarray(found[MEAN]), np.asarray(found[SCALE]))
    assert ready.ravel() == pytest.approx((np.arange(4) - 1.5) / np.sqrt(1.25), rel=1e-6)


def test_a_constant_or_unknown_column_is_left_at_scale_one() -> None:
    rows = Rows(np.array([[0.1, np.nan, 5e-13], [0.1, np.nan, 7e-13], [0.1, np.nan, 9e-13]]), np.zeros(3))
    found = with_statistics({}, moments_of(rows))
    assert np.asarray(found[MEAN])[:2] == pytest.approx([0.1, 0.0])
    assert np.asarray(found[SCALE])[:2].tolist() == [1.0, 1.0]
    assert np.asarray(found[SCALE])[2] == pytest.approx(np.std([5e-13, 7e-13, 9e-13]), rel=1e-9, abs=0)  # small is not constant


def test_a_site_without_rows_changes_nothing() -> None:
    one = moments_of(SITES[0])
    for both in (joined(one, moments_of(Rows(np.zeros((0, 2)), np.zeros(0)))), joined(Moments(0.0, 0.0, 0.0), one)):
        for found, known in zip(both, one, strict=True):
            np.testing.assert_array_equal(found, known)


@pytest.mark.parametrize("columns", [1, 4])
def test_a_site_with_other_columns_is_refused_by_name_and_the_others_go_on(columns: int) -> None:
    data = [*SITES, Rows(np.ones((2, columns)), np.zeros(2))]
    f = Recorded(data, fedavg(Linear(), rounds=1, standardise=True, metrics=[], evaluate_sites="none"))
    done = run(f.workflow.process.initialize, f)
    found = trees.split(done.result.model, [MEAN, SCALE])[0]
    assert np.asarray(found[MEAN]) == pytest.approx([4.0, 15.0])
    assert [(reply.site, reply.failure.code) for reply in done.refused if reply.failure] == [("s2", "spec")]


def test_an_infinite_feature_is_refused_with_its_column() -> None:
    with pytest.raises(DataError, match=r"x\[:, 1\]"):
        moments_of(Rows(np.array([[0.0, np.inf]]), np.zeros(1)))


def test_features_that_are_no_table_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(2, 3, 3\)"):
        moments_of(Rows(np.zeros((2, 3, 3)), np.zeros(2)))


def test_training_leaves_the_statistics_as_they_are_and_the_model_takes_raw_features() -> None:
    job = fedavg(Linear(), rounds=2, standardise=True, metrics=[Loss()])
    state = job.process.initialize(SITES)
    before = trees.split(state.model, [MEAN, SCALE])[0]
    for _ in range(2):
        state = job.process.next(state, SITES)
    assert trees.equal(trees.split(state.model, [MEAN, SCALE])[0], before)
    assert job.learner is not None
    scores = job.learner.predict(state.model, np.array([[np.nan, np.nan], [4.0, 15.0]]))
    assert scores[0] == scores[1] == np.asarray(state.model["b"])  # what is unknown stands at the mean, which is 0 when scaled


def test_it_is_the_training_on_prepared_rows() -> None:
    job = fedavg(Linear(), rounds=3, standardise=True, metrics=[Loss()])
    state = job.process.initialize(SITES)
    mean, scale = np.asarray(state.model[MEAN]), np.asarray(state.model[SCALE])
    for _ in range(3):
        state = job.process.next(state, SITES)
    ready = [Rows(prepare(rows.x, mean, scale), rows.y) for rows in SITES]
    plain = models(fedavg(Linear(), rounds=3, metrics=[Loss()]), ready, 3)[-1]
    assert trees.equal(trees.split(state.model, [MEAN, SCALE])[1], plain)


def test_scaffolds_correction_speaks_of_the_inner_learners_leaves_alone() -> None:
    f = Recorded(SITES, scaffold(logistic(features=2), rounds=2, standardise=True, metrics=[], evaluate_sites="none"))
    state = f.run().state
    assert sorted(state.extra) == ["bias", "weight"]


def test_a_model_without_statistics_says_why() -> None:
    with pytest.raises(SpecError, match="each site has its own"):
        Standardised(Linear(1)).predict({"w": np.zeros(1), "b": np.zeros(())}, np.zeros((1, 1)))


def test_only_training_rows_are_counted() -> None:
    rows = Rows(np.array([[1.0], [3.0], [100.0]]), np.zeros(3), parts=np.array([0, 0, 1], np.int8))
    assert np.asarray(statistics([rows, site(([5.0], 0.0))], Linear(1))[MEAN]) == pytest.approx([3.0])
