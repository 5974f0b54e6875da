"""Cyclic weight transfer by hand: two sites, a linear regression, plain steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.learning.linear import A, B, Linear, Loss, flat

from hansa import codec
from hansa.core.job import Job
from hansa.core.protocols import Dataset, FitConfig, Update
from hansa.core.task import Signal
from hansa.core.trees import Tree
from hansa.data.federated import FederatedRows
from hansa.data.rows import Rows
from hansa.errors import ConfigError, Interrupted, QuorumError
from hansa.learning import fedavg
from hansa.learning.cyclic import cyclic
from hansa.learning.rounds import Rounds
from hansa.simulation.engine import Result, simulate
from hansa.simulation.faults import Faults


def sites(*data: Rows) -> FederatedRows:
    return FederatedRows([f"s{slot}" for slot in range(len(data))], lambda slot: data[slot])


def run(workflow: Rounds, *data: Rows, **options: Any) -> Result:
    return simulate(Job("c", workflow), sites(*data), **options)


def made(rounds: int = 1, **options: Any) -> Rounds:
    return cyclic(Linear(), rounds=rounds, metrics=[Loss()], **options)


def test_each_site_goes_on_from_where_the_last_one_stopped() -> None:
    # A's steps: w=(1,2), b=1 after (1,2)->5, then the gradient (36,48,12) of (3,4)->6: w=(-2.6,-2.8), b=-.2. B's one row (1,2)->5
    # then has the residual -2.6-5.6-.2-5 = -13.4, so w - .1 * 2 * -13.4 (1,2,1) = (.08, 2.56, 2.48).
    assert flat(run(made(), A, B).model) == pytest.approx([0.08, 2.56, 2.48], abs=1e-12)
    # the other way round: B leads to (1,2,1), A's rows then leave a residual of 1, and so on, by the same steps
    there = run(made(), B, A).model
    assert flat(there) == pytest.approx(flat(run(fedavg(Linear(), rounds=1, metrics=[Loss()]), _both(B, A)).model), abs=1e-12)


def _both(first: Rows, second: Rows) -> Rows:
    """One site whose rows are those of the first, then those of the second: what the model meets on its way."""
    return Rows(np.concatenate([first.x, second.x]), np.concatenate([first.y, second.y]))


def test_a_round_is_one_pass_over_all_rows_so_two_rounds_are_two_epochs_of_pooled_training() -> None:
    pooled = fedavg(Linear(epochs=2), rounds=1, metrics=[Loss()])
    assert flat(run(made(2), A, B).model) == pytest.approx(flat(run(pooled, _both(A, B)).model), abs=1e-12)


def test_the_random_order_is_the_seeds_and_changes_from_round_to_round() -> None:
    data = [A, B, A, B]
    orders = [[list(r["sites"]) for r in run(made(6, order="random"), *data, seed=seed).metrics] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert len({tuple(each) for each in orders[0]}) > 1
    assert all(sorted(each) == ["s0", "s1", "s2", "s3"] for each in orders[0])
    fixed = run(made(3), *data).metrics
    assert [list(r["sites"]) for r in fixed] == [["s0", "s1", "s2", "s3"]] * 3


class Choosy(Linear):
    """Raises at sites whose first label is 13."""

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        if data.y[0] == 13.0:
            raise ValueError("not with these rows")
        return Linear.fit(self, model, data, config, rng=rng, abort=abort)


BAD = Rows(np.ones((1, 2)), np.array([13.0]))


def test_a_site_that_refuses_is_skipped_and_named_and_the_model_is_that_of_the_others() -> None:
    workflow = cyclic(Choosy(), rounds=1, metrics=[Loss()])
    with_it, without = run(workflow, A, BAD, B), run(workflow, A, B)
    assert flat(with_it.model) == flat(without.model)
    (refused,) = with_it.metrics[0]["refused"]
    assert (refused["site"], refused["code"]) == ("s1", "client")
    assert set(with_it.metrics[0]["sites"]) == {"s0", "s2"}


def test_a_lost_site_is_skipped_and_too_few_turns_end_the_run() -> None:
    result = run(made(8, evaluate_sites="none"), A, B, A, faults=Faults(dropout=0.3), seed=3)
    lost = [record["lost"] for record in result.metrics]
    assert any(lost)
    assert all(set(record["lost"]).isdisjoint(record["sites"]) for record in result.metrics)
    with pytest.raises(QuorumError, match="3 needed of 3 in turn; 2 trained"):
        run(cyclic(Choosy(), rounds=1, metrics=[Loss()], quorum=3), A, BAD, B)
    with pytest.raises(QuorumError, match="0 trained"):
        run(cyclic(Choosy(), rounds=1, metrics=[Loss()]), BAD)


def test_a_cohort_visits_only_so_many_sites_and_a_schedule_counts_rounds_not_turns() -> None:
    result = run(made(4, cohort=2), A, B, A, B)
    assert [len(record["sites"]) for record in result.metrics] == [2] * 4
    rates: list[int] = []

    def rate(done: int) -> float:
        rates.append(done)
        return 0.01

    run(made(2, client_lr=rate), A, B)
    assert rates[-4:] == [0, 0, 1, 1]


@pytest.mark.parametrize("option", [{"weighting": "examples"}, {"over_select": 0.5}, {"weight_cap": 3.0}, {"order": "backwards"}])
def test_options_without_a_meaning_are_refused_by_name(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**option)
    assert caught.value.path == next(iter(option))


class Interrupting(Linear):
    """Is interrupted at the site whose rows it is given at the third round."""

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        if config.lr == 0.002 and len(data) == 1 and not Path("again").exists():
            raise KeyboardInterrupt
        return Linear.fit(self, model, data, config, rng=rng, abort=abort)


def test_a_run_that_is_cut_off_between_two_hops_ends_with_the_undisturbed_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def rate(done: int) -> float:
        return 0.002 if done == 2 else 0.01

    workflow = cyclic(Linear(), rounds=4, order="random", metrics=[Loss()], client_lr=rate)
    whole = codec.digest(run(workflow, A, B, A).model)
    job = Job("c", cyclic(Interrupting(), rounds=4, order="random", metrics=[Loss()], client_lr=rate))
    with pytest.raises(Interrupted):
        simulate(job, sites(A, B, A), out=tmp_path / "r")
    Path("again").touch()
    resumed = simulate(job, sites(A, B, A), out=tmp_path / "r", resume=True)
    assert codec.digest(resumed.model) == whole
    assert [record["round"] for record in resumed.metrics] == [1, 2, 3, 4]


def test_workers_give_the_bits_of_the_loop() -> None:
    workflow = made(3, order="random")
    assert codec.digest(run(workflow, A, B, A, workers=2).model) == codec.digest(run(workflow, A, B, A).model)
    assert replace(workflow, rounds=5).rounds == 5
