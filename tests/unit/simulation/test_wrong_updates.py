"""What a site sends or does wrong is refused by name, and the model is what it would be without that site."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.simulation.means import Change, Means, job, raising, sites

import hansa as hs
from hansa.core import trees
from hansa.core.protocols import Update
from hansa.core.round import Policy
from hansa.core.task import FLContext, Shareable, Signal, Task
from hansa.data.federated import FederatedRows
from hansa.data.rows import Rows
from hansa.errors import ClientError, DataError, QuorumError
from hansa.learning.fedavg import fedavg
from hansa.simulation.engine import Result, simulate
from hansa.simulation.sites import failure_of

ENGINES: list[dict[str, Any]] = [{}, {"workers": 2}, {"engine": "vectorised"}]


def delta(*values: float, name: str = "w", dtype: Any = np.float32) -> Change:
    return lambda update: update._replace(delta={name: np.array(values, dtype)})


def weight(value: float) -> Change:
    return lambda update: update._replace(examples=value)  # type: ignore[arg-type]  # what a site claims, the gate must check


WRONG: dict[str, tuple[Change, str, str]] = {  # what site b does, and how it is refused
    "shape": (delta(1, 2, 3), "spec", "delta/w"),
    "a broadcastable shape": (delta(1), "spec", "delta/w"),
    "dtype": (delta(1, 2, dtype=np.float64), "spec", "delta/w"),
    "integers": (delta(1, 2, dtype=np.int64), "spec", "delta/w"),
    "another key": (delta(1, 2, name="v"), "spec", "delta/w"),
    "a key too many": (lambda u: u._replace(delta={**u.delta, "v": np.ones(2)}), "spec", "delta/v"),
    "no leaves": (lambda u: u._replace(delta={}), "spec", "delta"),
    "nan": (delta(1, np.nan), "not_finite", "delta/w"),
    "inf": (delta(-np.inf, 1), "not_finite", "delta/w"),
    "weight zero": (weight(0), "weight", "weight"),
    "weight negative": (weight(-3), "weight", "weight"),
    "weight nan": (weight(np.nan), "weight", "weight"),
    "weight infinite": (weight(np.inf), "weight", "weight"),
    "weight over the cap": (weight(101), "weight", "weight"),
}


def w(result: Result) -> list[float]:
    return [float(value) for value in trees.flatten(result.model)["w"]]


@pytest.mark.parametrize("options", ENGINES, ids=["loop", "pool", "vectorised"])
@pytest.mark.parametrize(("change", "code", "path"), WRONG.values(), ids=WRONG)
def test_a_wrong_update_is_named_and_the_model_is_that_of_the_others(
    change: Change, code: str, path: str, options: dict[str, Any]
) -> None:
    result = simulate(job({1: change}, weight_cap=100), sites(0, 1, 2), **options)
    assert w(result) == [2.5, 2.5]  # (1*1 + 3*3) / (1 + 3): sites a and c
    assert w(result) == w(simulate(job(weight_cap=100), sites(0, 2)))
    [refused] = result.metrics[0]["refused"]
    assert (refused["site"], refused["code"]) == ("b", code)
    assert path.startswith(refused["path"]) or refused["path"].startswith(path)
    assert "b" not in result.metrics[0]["sites"]


def test_a_refusal_says_where_what_was_expected_and_what_came() -> None:
    result = simulate(job({1: delta(1, np.nan), 2: delta(1, 2, 3), 3: weight(-3)}), sites(0, 1, 2, 3))
    assert [each["message"] for each in result.metrics[0]["refused"]] == [
        "an entry is not finite; at path delta/w; expected finite numbers; got nan at [1]",
        "a leaf does not fit; at path delta/w; expected float32[2]; got float32[3]",
        "not a weight; at path weight; expected a finite number > 0; got -3",
    ]


def test_the_run_folder_names_who_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # drawing curves takes longer than the run
    simulate(job({1: delta(1, np.inf)}), sites(0, 1), out=tmp_path / "run")
    [line] = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    [refused] = json.loads(line)["refused"]
    assert refused.items() >= {"site": "b", "code": "not_finite", "path": "delta/w"}.items()


@pytest.mark.parametrize("options", ENGINES, ids=["loop", "pool", "vectorised"])
def test_a_client_that_raises_is_refused_with_its_traceback_and_the_run_goes_on(options: dict[str, Any]) -> None:
    result = simulate(job({1: raising(ValueError("no such column"))}, rounds=2), sites(0, 1, 2), **options)
    assert w(result) == [5.0, 5.0]
    for record in result.metrics:
        assert [(each["site"], each["code"]) for each in record["refused"]] == [("b", "client")]
        [raised] = record["raised"]
        assert (raised["site"], raised["message"]) == ("b", "ValueError: no such column")
        assert "in fail\n    raise error\nValueError: no such column" in raised["trace"]


def test_many_sites_that_raise_the_same_have_one_traceback_a_round() -> None:
    result = simulate(job({1: raising(ValueError("x")), 2: raising(ValueError("x"))}), sites(0, 1, 2))
    assert [len(result.metrics[0][name]) for name in ("refused", "raised")] == [2, 1]


def test_one_line_of_code_has_one_traceback_whatever_values_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    broken: dict[int, Change] = {key: raising(ValueError(f"row {key}")) for key in (1, 2)}
    result = simulate(job(broken), sites(0, 1, 2), progress="plain")
    assert [each["message"] for each in result.metrics[0]["raised"]] == ["ValueError: row 1"]
    shown = capsys.readouterr().err
    assert shown.count("Traceback") == 1
    assert "site 'c' refused: ValueError: row 2" in shown


def test_a_client_error_brings_the_traceback_of_where_it_happened() -> None:
    failure = failure_of(ClientError("KeyError: 'age'", trace="in a process of the site's own"))
    assert (failure.code, failure.message, failure.trace) == ("client", "KeyError: 'age'", "in a process of the site's own")


def test_our_own_errors_say_what_is_wrong_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    result = simulate(job({1: raising(DataError("no rows of 2024", path="b.csv"))}), sites(0, 1), progress="plain")
    assert "raised" not in result.metrics[0]
    shown = capsys.readouterr().err
    assert "site 'b' refused: no rows of 2024; at path b.csv" in shown
    assert "Traceback" not in shown


def test_a_silent_run_says_at_its_end_in_one_line_that_sites_were_refused(capsys: pytest.CaptureFixture[str]) -> None:
    simulate(job({1: delta(1, np.nan), 2: raising(ValueError("x"))}, rounds=2), sites(0, 1, 2))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "means: sites with refused replies: 2 of 3; first 'b', in round 1: an entry is not finite; at path delta/w"
    )
    simulate(job(), sites(0, 1))
    assert capsys.readouterr().err == ""


def test_what_a_client_raised_is_shown_once_with_round_and_site(capsys: pytest.CaptureFixture[str]) -> None:
    simulate(job({1: raising(ValueError("no such column"))}, rounds=3), sites(0, 1), progress="plain")
    shown = capsys.readouterr().err
    assert shown.count("Traceback") == 1
    assert "round 1: site 'b' refused: ValueError: no such column" in shown
    assert "round 3: site 'b' refused: ValueError: no such column" in shown


@pytest.mark.parametrize("options", ENGINES, ids=["loop", "pool", "vectorised"])
def test_a_client_that_exits_takes_nobody_with_it(options: dict[str, Any]) -> None:
    result = simulate(job({1: raising(SystemExit(3))}), sites(0, 1, 2), **options)
    assert w(result) == [2.5, 2.5]
    assert result.metrics[0]["refused"][0]["message"] == "SystemExit: 3"


@pytest.mark.parametrize("options", ENGINES, ids=["loop", "pool", "vectorised"])
def test_when_every_client_fails_the_error_shows_a_sites_traceback(options: dict[str, Any]) -> None:
    broken = {key: raising(ValueError("no such column")) for key in range(3)}
    with pytest.raises(QuorumError, match="no such column") as caught:
        simulate(job(broken), sites(0, 1, 2), **options)
    assert (caught.value.round, caught.value.task) == (1, "local_train")
    assert caught.value.message == "the quorum is out of reach: 1 needed of 3 invited; 0 admitted, 3 refused, 0 lost, 0 outstanding"
    assert caught.value.hint == "site 'a': ValueError: no such column"
    [note] = caught.value.__notes__  # nothing else shows it in silent mode
    assert note.startswith("site 'a', round 1, task 'local_train':\nTraceback (most recent call last):")
    assert "in fail\n    raise error\nValueError: no such column" in note


@pytest.mark.parametrize("options", ENGINES, ids=["loop", "pool", "vectorised"])
def test_an_empty_site_is_refused_and_says_that_it_has_no_training_rows(options: dict[str, Any]) -> None:
    empty = Rows(np.zeros((0, 1), np.float32), np.zeros(0))
    full = sites(0, 2)
    data = FederatedRows(["a", "b", "c"], lambda slot: empty if slot == 1 else full.load(slot // 2))
    result = simulate(job(), data, **options)
    assert w(result) == [2.5, 2.5]
    [refused] = result.metrics[0]["refused"]
    assert (refused["site"], refused["code"]) == ("b", "data")
    assert "no training rows" in refused["message"]


@pytest.mark.parametrize("options", ENGINES, ids=["loop", "pool", "vectorised"])
def test_a_site_whose_data_cannot_be_loaded_is_refused(options: dict[str, Any]) -> None:
    full = sites(0, 1, 2)

    def load(slot: int) -> Any:
        if slot == 1:
            raise DataError("cut off or damaged", path="b.npz")
        return full.load(slot)

    result = simulate(job(), FederatedRows(["a", "b", "c"], load), **options)
    assert w(result) == [2.5, 2.5]
    assert [(each["site"], each["path"]) for each in result.metrics[0]["refused"]] == [("b", "b.npz")]


def test_a_site_that_cannot_evaluate_is_told_with_the_round() -> None:
    class Blind(Means):
        def evaluate(self, model: Any, data: Any) -> Any:
            if len(data.x) and data.x[0, 0] == 1:
                raise RuntimeError("no eyes")
            return super().evaluate(model, data)

    seeing, both = sites(0), Rows(np.ones((3, 1), np.float32), np.zeros(3), parts=np.array([0, 0, 1], np.int8))
    data = FederatedRows(["a", "b"], lambda slot: both if slot else seeing.load(0))
    result = simulate(hs.Job("blind", fedavg(Blind(), rounds=1)), data)
    assert w(result) == pytest.approx([5 / 3, 5 / 3])
    assert result.metrics[0]["raised"][0]["task"] == "evaluate_valid"


@pytest.mark.parametrize("options", [{}, {"workers": 2}], ids=["loop", "pool"])
def test_a_client_cannot_change_what_the_next_one_is_sent(options: dict[str, Any]) -> None:
    class InPlace(Means):
        def fit(self, model: Any, data: Any, config: Any, *, rng: Any, abort: Any) -> Update:
            if data.x[0, 0] == 0:
                model["w"] += 7
            return super().fit(model, data, config, rng=rng, abort=abort)

    result = simulate(hs.Job("inplace", fedavg(InPlace(), rounds=1, evaluate_sites="none")), sites(0, 1), **options)
    assert w(result) == [2.0, 2.0]  # site b alone
    assert "read-only" in result.metrics[0]["refused"][0]["message"]


class Answers(hs.Executor):
    """Site a answers what it is told, the others 1."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Any:
        return self.answer if fl_ctx.slot == 0 else Shareable({"n": np.array(1)})


def ask_once(federation: Any) -> tuple[list[str], list[tuple[str, str]]]:
    replies = federation.task(Task("count"), range(len(federation.sites)), Policy())
    return [reply.site for reply in replies], [(reply.failure.code, reply.failure.message) for reply in replies.refused]


@pytest.mark.parametrize("options", [{}, {"workers": 2}], ids=["loop", "pool"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "an executor returns a Shareable; got NoneType"),
        (Shareable({"n": 3}), "not an array of numbers; at path n; got int"),  # type: ignore[dict-item]
        (Shareable({"n": np.array(["x"], object)}), "not an array of numbers; at path n; got object"),
        (Shareable({"a/b": np.ones(1)}), "a key is a non-empty string without '/'; got 'a/b'"),
        (Shareable({"n": np.ones(1)}, {"loss": "low"}), "a metric is a number; at path metrics/loss; got str"),  # type: ignore[dict-item]
        (Shareable([1]), "not a tree; got list"),  # type: ignore[arg-type]
    ],
)
def test_an_executors_reply_that_could_not_leave_a_site_is_refused(answer: Any, message: str, options: dict[str, Any]) -> None:
    asking = hs.Job("ask", ask_once, executor=Answers(answer))
    admitted, refused = simulate(asking, sites(0, 1), **options).value
    assert admitted == ["b"]
    assert [text for _, text in refused] == [message]


def test_a_filter_that_returns_nothing_is_named() -> None:
    asking = hs.Job("ask", ask_once, executor=Answers(Shareable()), filters=[lambda reply, ctx: None])  # type: ignore[list-item]
    with pytest.raises(QuorumError, match="a filter returns a Shareable"):
        simulate(asking, sites(0, 1))


@pytest.mark.parametrize("options", [{}, {"workers": 2}], ids=["loop", "pool"])
def test_what_a_refused_site_put_into_its_memory_is_not_kept(options: dict[str, Any]) -> None:
    class Puts(hs.Executor):
        def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
            assert fl_ctx.memory is not None
            fl_ctx.memory.put("seen", {"n": np.array(fl_ctx.slot)})
            if fl_ctx.slot == 0:
                raise ValueError("after the put")
            return Shareable({"n": np.array(1)})

    result = simulate(hs.Job("puts", ask_once, executor=Puts()), sites(0, 1), **options)
    assert {slot: sorted(names) for slot, names in result.memory.items()} == {1: ["seen"]}


def test_a_memory_that_is_no_tree_is_the_sites_own_failure() -> None:
    class Puts(hs.Executor):
        def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
            assert fl_ctx.memory is not None
            fl_ctx.memory.put("seen", {"n": [1]})  # type: ignore[dict-item]
            return shareable

    with pytest.raises(QuorumError, match="not an array of numbers; at path memory/seen/n; got list"):
        simulate(hs.Job("puts", ask_once, executor=Puts()), sites(0, 1))
