from __future__ import annotations

import numpy as np
import pytest

from hansa.compat.flare.apis.dxo import DXO, DataKind, from_shareable
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.filter import Filter
from hansa.compat.flare.apis.fl_constant import FLContextKey
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import make_reply
from hansa.compat.flare.app_common.filters.convert_weights import ConvertWeights
from hansa.compat.flare.app_common.filters.exclude_vars import ExcludeVars
from hansa.compat.flare.app_common.filters.percentile_privacy import PercentilePrivacy
from hansa.compat.flare.app_common.filters.svt_privacy import EPSILON_SPENT, SVTPrivacy


def through(each: Filter, data: dict[str, object], kind: str = DataKind.WEIGHT_DIFF, **meta: object) -> DXO:
    return from_shareable(each.process(DXO(kind, dict(data), dict(meta)).to_shareable(), FLContext()))


@pytest.mark.parametrize(
    ("excluded", "left"),
    [
        (["head.w"], ["body.w", "head.b"]),
        (r"^head\.", ["body.w"]),
        ("dummy", ["body.w", "head.b", "head.w"]),
        (None, ["body.w", "head.b", "head.w"]),
    ],
)
def test_excluded_weights_do_not_leave(excluded: list[str] | str | None, left: list[str]) -> None:
    data: dict[str, object] = dict.fromkeys(("head.w", "head.b", "body.w"), 1.0)
    assert sorted(through(ExcludeVars(excluded), data).data) == left


def test_a_filter_for_weights_lets_pass_what_is_none() -> None:
    failed = make_reply("TASK_ABORTED")
    assert ExcludeVars(["w"]).process(failed, FLContext()) is failed
    assert through(ExcludeVars(["w"]), {"w": 1}, DataKind.METRICS).data == {"w": 1}
    with pytest.raises(ValueError, match="regular expression"):
        ExcludeVars("(")


def test_percentile_zeroes_the_smaller_changes_per_step_and_clips_the_rest() -> None:
    data: dict[str, object] = {"a": np.array([0.2, -0.4], np.float32), "b": np.array([6.0, -8.0])}
    got = through(PercentilePrivacy(percentile=50, gamma=1.0), data, NUM_STEPS_CURRENT_ROUND=2).data
    # per step 0.1 0.2 3 4: the median is 1.6
    assert (got["a"].tolist(), got["b"].tolist(), got["a"].dtype) == ([0.0, 0.0], [2.0, -2.0], np.float32)


def test_convert_weights_takes_the_difference_to_what_came_though_the_trainer_changed_it_in_place() -> None:
    ctx, weights = FLContext(), {"w": np.array([1.0, 2.0])}
    to_diff = ConvertWeights("weights_to_diff")
    ctx.put(FLContextKey.TASK_DATA, DXO(DataKind.WEIGHTS, weights).to_shareable())
    to_diff.handle_event(EventType.BEFORE_TASK_EXECUTION, ctx)
    weights["w"] += 0.5
    got = from_shareable(to_diff.process(DXO(DataKind.WEIGHTS, weights, {"x": 1}).to_shareable(), ctx))
    assert (got.data_kind, got.data["w"].tolist(), got.meta) == ("WEIGHT_DIFF", [0.5, 0.5], {"x": 1})
    with pytest.raises(ValueError, match="'v' did not come"):
        to_diff.process(DXO(DataKind.WEIGHTS, {"v": np.zeros(1)}).to_shareable(), ctx)


def test_svt_releases_at_most_the_fraction_and_nothing_without_noise() -> None:
    data: dict[str, object] = {"w": np.linspace(-1, 1, 1000), "v": np.ones((10, 10), np.float32)}
    got = through(SVTPrivacy(fraction=0.05, seed=1), data, NUM_STEPS_CURRENT_ROUND=1.0)
    released = np.concatenate([got.data["w"].ravel(), got.data["v"].ravel()])
    chosen = released[released != 0]
    assert (0 < len(chosen) <= 55, got.data["v"].shape, got.data["v"].dtype) == (True, (10, 10), np.float32)
    assert len(np.unique(chosen)) == len(chosen)  # each is noised: 2.0 returned some as they were
    assert not np.isin(chosen, np.clip(np.linspace(-1, 1, 1000), -1e-5, 1e-5)).any()


def test_svt_counts_what_it_spends_over_the_calls() -> None:
    each = SVTPrivacy(fraction=0.1, epsilon=0.5, noise_var=0.25, gamma=1.0, tau=1e-9, seed=3)
    first = each.release(np.ones(40))
    released = int(np.count_nonzero(first[0]))
    assert first[1] == pytest.approx(0.5 + 0.5 * 8 ** (2 / 3) + released * 0.25)
    got = through(each, {"w": np.ones(40)}).meta
    again = through(each, {"w": np.ones(40)}).meta
    assert 0 < got[EPSILON_SPENT] < again[EPSILON_SPENT] == each.spent


def test_svt_noise_has_the_scale_that_its_epsilon_says_and_two_sites_never_the_same() -> None:
    each = SVTPrivacy(fraction=1.0, epsilon=1e6, noise_var=2.0, gamma=1.0, tau=1e-9, seed=5)
    released, _ = each.release(np.full(20_000, 0.5))
    noise = released[released != 0] - 0.5
    assert float(np.abs(noise).mean()) == pytest.approx(2.0 * 1.0 / 2.0, rel=0.05)  # E|Lap(b)| = b = 2 gamma / noise_var
    one, other = (SVTPrivacy(fraction=1.0).release(np.ones(50))[0] for _ in range(2))
    assert one.tolist() != other.tolist()
    for bad in ({"fraction": 0}, {"epsilon": 0}, {"gamma": -1}, {"tau": float("nan")}, {"noise_var": 0}):
        with pytest.raises(ValueError, match="must be above 0"):
            SVTPrivacy(**bad)
