"""SCAFFOLD by hand, and the laws of its control variates."""

from typing import Any

import numpy as np
import pytest
from tests.unit.learning.linear import Linear, Loss, Recorded, flat, models, site

from hansa.core import trees
from hansa.data.rows import Rows
from hansa.errors import RunError
from hansa.learning.fedavg import fedavg
from hansa.learning.scaffold import scaffold
from hansa.learning.templates import Setup
from hansa.testing.fakes import ConstantLearner, rows

# x = 0 leaves b alone to learn: the gradient of (b - y)^2 is 2 (b - y). Targets 1, 2, 6; step size 0.25, two steps a round.
TARGETS = [site(([0.0], 1.0)), site(([0.0], 2.0)), site(([0.0], 6.0))]


def federation(rounds: int = 2, data: list[Rows] = TARGETS, **options: Any) -> Recorded:
    learner = Linear(1, lr=0.25)
    return Recorded(data, scaffold(learner, rounds=rounds, metrics=[Loss()], **{"steps": 2, **options}))


def control_of(f: Recorded, slot: int) -> float:
    found: Any = f.memory[slot].get("control")
    return float(found["b"])


def test_two_rounds_by_hand() -> None:
    f = federation()
    state = f.run().state
    # Round 1, all controls 0. Two steps halve the distance twice: y_i = 0.75 t = 0.75, 1.5, 4.5, so b = 2.25.
    # c_i = -y_i / (2 * 0.25) = -1.5, -3, -9 and c = -4.5.
    # Round 2, b = 2.25. A step is y <- y - 0.25 (2 (y - t) + c - c_i) = (y + t') / 2 with t' = t - (c - c_i) / 2:
    # t' = 1 + 1.5 = 2.5, 2 + 0.75 = 2.75, 6 - 2.25 = 3.75. Two steps: y = 0.25 * 2.25 + 0.75 t' = 2.4375, 2.625, 3.375.
    # b = their mean = 2.8125. c_i+ = c_i - c - (y - 2.25) / 0.5 = -1.5 + 4.5 - 0.375 = 2.625; -3 + 4.5 - 0.75 = 0.75;
    # -9 + 4.5 - 2.25 = -6.75. c = -4.5 + mean of the changes = mean of c_i+ = -1.125.
    assert flat(state.model) == pytest.approx([0.0, 2.8125])
    assert [control_of(f, slot) for slot in range(3)] == pytest.approx([2.625, 0.75, -6.75])
    assert float(state.extra["b"]) == pytest.approx(-1.125)


def test_after_any_number_of_full_rounds_the_servers_control_is_the_mean_of_the_sites() -> None:
    f = federation(rounds=7)
    state = f.run().state
    assert float(state.extra["b"]) == pytest.approx(np.mean([control_of(f, slot) for slot in range(3)]), abs=1e-12)


def test_with_a_part_of_the_sites_the_control_still_is_the_mean_over_all_of_them() -> None:
    f = federation(rounds=9, cohort=2, evaluate_sites="none")
    state = f.run().state
    known = sum(control_of(f, slot) for slot in f.memory)  # a site that was never asked has control 0
    assert len(f.came) == 9 * 2
    assert float(state.extra["b"]) == pytest.approx(known / 3, abs=1e-12)


def test_one_local_step_of_all_sites_is_fedavg() -> None:
    # The corrections c - c_i add up to nothing when every site takes one step.
    options: dict[str, Any] = {"steps": 1, "weighting": "uniform", "metrics": [Loss()]}
    f = Recorded(TARGETS, scaffold(Linear(1, lr=0.25), rounds=4, **options))
    plain = models(fedavg(Linear(1, lr=0.25), rounds=4, **options), TARGETS, 4)[-1]
    assert flat(f.run().state.model) == pytest.approx(flat(plain), abs=1e-12)


def test_it_reaches_the_optimum_where_fedavg_is_held_off_by_unlike_sites() -> None:
    # Curvatures 2 and 2 * 10, optima 1 and 0 (in w): the joint optimum is (1 + 0) / (1 + 10) = 1/11.
    data = [site(([1.0], 1.0)), site(([10.0**0.5], 0.0))]
    options: dict[str, Any] = {"steps": 8, "metrics": [Loss()], "weighting": "uniform"}

    def final(algorithm: Any) -> float:
        f = Recorded(data, algorithm(NoBias(1, lr=0.04), rounds=15, **options))
        return float(np.asarray(f.run().state.model["w"])[0])

    assert final(scaffold) == pytest.approx(1 / 11, abs=1e-3)
    assert abs(final(fedavg) - 1 / 11) > 0.1


def test_only_the_change_of_a_control_leaves_and_never_the_control() -> None:
    f = federation()
    f.run()
    assert {name for name, _, _ in f.came} >= {"controlled_train"}
    for name, _, reply in f.came:
        if name == "controlled_train":
            assert sorted(reply.body) == ["control", "delta", "weight"]
    changes = [trees.flatten(r.body)["control/b"] for name, slot, r in f.came if name == "controlled_train" and slot == 2]
    assert [float(change) for change in changes] == pytest.approx([-9.0, 2.25])


def test_the_server_counts_the_sites_whatever_a_site_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = federation(rounds=2).run().state
    # A site once sent how many it was; what it can send now is weighed behind the gate, and the control's share ignores it.
    monkeypatch.setattr(Setup, "weight", lambda setup, examples: 10**6)
    claimed = federation(rounds=2).run().state
    assert float(claimed.extra["b"]) == pytest.approx(float(honest.extra["b"]))


def test_a_weighted_mean_leaves_the_controls_unweighted() -> None:
    data = [site(([0.0], 4.0), ([0.0], 4.0), ([0.0], 4.0)), site(([0.0], 8.0))]
    f = Recorded(data, scaffold(Linear(1, lr=0.25), rounds=1, steps=1, weighting="examples", metrics=[Loss()]))
    state = f.run().state
    assert flat(state.model)[1] == pytest.approx((3 * 2.0 + 4.0) / 4)  # one step: b = t / 2
    assert float(state.extra["b"]) == pytest.approx(-(8 + 16) / 2)  # the gradients at 0


def test_the_server_step_scales_the_model_and_not_the_control() -> None:
    state = federation(rounds=1, server_lr=0.5).run().state
    assert flat(state.model)[1] == pytest.approx(2.25 / 2)
    assert float(state.extra["b"]) == pytest.approx(-4.5)


def test_leaves_that_no_gradient_moves_have_no_control() -> None:
    learner = ConstantLearner({"w": np.ones(2), "bn.running_mean": np.ones(2), "count": np.array(4)})
    f = Recorded([rows(3), rows(3, seed=1)], scaffold(learner, rounds=2, metrics=[Loss()], evaluate_sites="none"))
    state = f.run().state
    assert list(state.extra) == ["w"]
    assert state.model["count"] == 8
    assert state.extra["w"].tolist() == [-1.0, -1.0]


def test_a_step_size_of_zero_is_an_error_and_not_an_infinite_control() -> None:
    f = Recorded([rows(3)], scaffold(ConstantLearner({"w": np.ones(2)}, lr=0.0), rounds=1, metrics=[Loss()]))
    with pytest.raises(RunError, match="divides by steps times step size"):
        f.run()


class NoBias(Linear):
    """A linear regression whose b stays 0."""

    def _gradient(self, at: Any, x: Any, y: Any) -> Any:
        gradient, loss = super()._gradient(at, x, y)
        gradient[-1] = 0.0
        return gradient, loss
