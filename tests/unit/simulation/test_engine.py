"""What `simulate` takes, what it refuses, and what it leaves alone."""

from __future__ import annotations

import errno
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.simulation.means import Means, job, raising, sites
from threadpoolctl import threadpool_info

import hansa as hs
from hansa import codec
from hansa.adapters.numpy import softmax
from hansa.core import trees
from hansa.core.round import Policy
from hansa.core.task import FLContext, Shareable, Signal, Task
from hansa.core.workflow import Outcome
from hansa.data.federated import FederatedRows, population
from hansa.data.rows import Rows
from hansa.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    HansaError,
    InputError,
    Interrupted,
    ReplayError,
    SpecError,
    VersionError,
)
from hansa.learning.fedavg import fedavg
from hansa.simulation.engine import simulate
from hansa.simulation.lock import running
from hansa.testing.fakes import rows


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write no curves.png here: drawing takes longer than they do."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.mark.parametrize(
    ("options", "path", "hint"),
    [
        ({"engine": "poll"}, "engine", "did you mean 'pool'?"),
        ({"start": "frok"}, "start", None),
        ({"workers": 0}, "workers", None),
        ({"workers": "2"}, "workers", None),
        ({"workers": 2.0}, "workers", None),
        ({"workers": 2, "engine": "loop"}, "engine", None),
        ({"checkpoint_every": 0}, "checkpoint_every", None),
        ({"progress": "loud"}, "progress", None),
        ({"seed": 1.5}, "seed", None),
        ({"worker": 2}, None, "did you mean 'workers'?"),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(options: dict[str, Any], path: str | None, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        simulate(job(), sites(0), **options)
    assert (caught.value.path, caught.value.hint) == (path, hint)


def test_data_of_another_label_or_kind_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected label 'data'; got \['other'\]"):
        simulate(job(), {"other": sites(0)})
    with pytest.raises(DataError, match=r"not a federated data set; at .*path data; got list"):
        simulate(job(), [sites(0).load(0)])  # type: ignore[arg-type]


def test_a_seed_may_be_a_numpy_integer_and_one_seed_gives_one_model(tmp_path: Path) -> None:
    data = population(4, lambda slot: rows(8, seed=slot))
    softmaxes = hs.Job("digits", fedavg(softmax(classes=2, features=4), rounds=1, metrics=[]))
    one = simulate(softmaxes, data, seed=np.int64(3), out=tmp_path / "run")  # type: ignore[arg-type]
    assert trees.equal(one.model, simulate(softmaxes, data, seed=3).model)
    assert not trees.equal(one.model, simulate(softmaxes, data, seed=4).model)


def test_nothing_is_loaded_before_a_client_is_sampled_of_a_million() -> None:
    loaded: list[int] = []

    def load(slot: int) -> Rows:
        loaded.append(slot)
        return rows(8, seed=slot)

    data = population(1_000_000, load, keep=16)
    sampled = hs.Job("sampled", fedavg(softmax(classes=2, features=4), rounds=2, cohort=5, metrics=[]))
    result = simulate(sampled, data)
    assert len(loaded) == 10
    assert sorted(data.sites[slot] for slot in loaded) == sorted(site for record in result.metrics for site in record["sites"])


def test_who_changes_a_model_of_the_result_changes_no_other() -> None:
    result = simulate(hs.Job("means", fedavg(Means(), rounds=2, evaluate_sites="none", metrics=[])), sites(0, 1))
    before = trees.copy(result.best)
    trees.flatten(result.model)["w"][:] = 99.0
    assert trees.equal(result.best, before)
    assert trees.equal(result.value.state.model, before)


def test_the_callers_objects_are_never_changed() -> None:
    kept = [rows(20, seed=slot, valid=5) for slot in range(3)]
    before = [(each.x.copy(), each.y.copy()) for each in kept]
    init = {"w": np.full(2, 3.0, np.float32)}
    options: dict[str, Any] = {"metrics": ["loss"], "evaluate_sites": "none"}
    means = hs.Job("means", fedavg(Means(), rounds=2, init=init, **options))
    for engine in ({}, {"engine": "vectorised"}):
        result = simulate(means, sites(0, 1), **engine)  # type: ignore[arg-type]
        assert trees.flatten(result.model)["w"].tolist() == pytest.approx([3 + 2 * 5 / 3] * 2)
        softmaxes = hs.Job("digits", fedavg(softmax(classes=2, features=4), rounds=2))
        simulate(softmaxes, FederatedRows(["a", "b", "c"], kept.__getitem__), **engine)  # type: ignore[arg-type]
    assert init["w"].tolist() == [3, 3]
    assert init["w"].flags.writeable
    assert options == {"metrics": ["loss"], "evaluate_sites": "none"}
    for (x, y), each in zip(before, kept, strict=True):
        np.testing.assert_array_equal(each.x, x)
        np.testing.assert_array_equal(each.y, y)


def ambient() -> list[Any]:
    """Python's and NumPy's global streams, and the threads of each numeric library."""
    stream = np.random.get_state(legacy=False)["state"]  # noqa: NPY002  the global stream is what is watched
    threads = [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]
    return [random.getstate(), stream["key"].tolist(), stream["pos"], threads]


def test_global_random_streams_and_thread_counts_are_left_alone() -> None:
    before = ambient()
    softmaxes = hs.Job("digits", fedavg(softmax(classes=2, features=4), rounds=2))
    engines: list[dict[str, Any]] = [{}, {"workers": 2}, {"engine": "vectorised"}]
    for options in engines:
        simulate(softmaxes, population(3, lambda slot: rows(8, seed=slot)), **options)
    assert ambient() == before


def test_one_thread_computes_while_a_deterministic_run_is_under_way() -> None:
    seen: list[int] = []

    def look(federation: Any) -> None:
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")

    simulate(hs.Job("look", look), sites(0))
    assert set(seen) <= {1}


def test_an_init_that_does_not_fit_the_model_is_refused_with_its_path() -> None:
    with pytest.raises(SpecError) as caught:
        simulate(hs.Job("means", fedavg(Means(), rounds=1, init={"w": np.zeros(3, np.float32)})), sites(0))
    assert caught.value.path == "init/w"


def test_a_vectorised_run_of_what_cannot_be_batched_is_an_error_and_no_loop() -> None:
    class Alone(Means):
        fit_many = None  # type: ignore[assignment]

    simple = hs.Job("alone", fedavg(Alone(), rounds=1))
    with pytest.raises(ConfigError, match="use --engine loop or pool"):
        simulate(simple, sites(0, 1), engine="vectorised")


def test_an_error_of_the_workflow_leaves_a_run_in_state_failed_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(HansaError):
        simulate(job({0: raising(ValueError("x"))}), sites(0), out=tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["state"] == "failed"
    assert "the quorum is out of reach" in info["error"]


class Stop(BaseException):
    """Ends a run as a kill would: no code of the run goes on from it."""


class Killed:
    """A workflow that is stopped after a number of checkpoints."""

    def __init__(self, workflow: Any, after: int) -> None:
        self.workflow, self.after = workflow, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.workflow, name)

    def __call__(self, federation: Any) -> Any:
        write = federation.on_checkpoint

        def stop_after(number: int, *rest: Any) -> None:
            write(number, *rest)
            if number == self.after:
                raise Stop

        federation.on_checkpoint = stop_after
        return self.workflow(federation)


def stopped(after: int, folder: Path, *, rounds: int = 3) -> hs.Job:
    """A run in a folder that ended after a round's checkpoint, and the job to resume it with."""
    whole = job(rounds=rounds)
    with pytest.raises(Stop):
        simulate(hs.Job("means", Killed(whole.workflow, after)), sites(0, 1), out=folder)
    return whole


def lines(folder: Path) -> list[dict[str, Any]]:
    """The metrics without the wall clock."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def test_a_resumed_run_gives_the_model_and_metrics_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole = stopped(1, tmp_path / "killed")
    resumed = simulate(whole, sites(0, 1), out=tmp_path / "killed", resume=True)
    straight = simulate(whole, sites(0, 1), out=tmp_path / "straight")
    assert codec.digest(resumed.model) == codec.digest(straight.model)
    assert lines(tmp_path / "killed") == lines(tmp_path / "straight")
    assert [record["round"] for record in resumed.metrics] == [1, 2, 3]


def test_a_run_is_not_resumed_with_vectorised_clients_where_it_began_without(tmp_path: Path) -> None:
    whole = stopped(1, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"another engine; .*path engine; expected loop; got vectorised .loop and pool"):
        simulate(whole, sites(0, 1), out=tmp_path / "run", resume=True, engine="vectorised")
    assert len(simulate(whole, sites(0, 1), out=tmp_path / "run", resume=True, workers=2).metrics) == 3


def test_a_completed_run_is_not_resumed_and_stays_as_it_is(tmp_path: Path) -> None:
    simulate(job(rounds=2), sites(0, 1), out=tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(InputError, match="the run is completed"):
        simulate(job(rounds=2), sites(0, 1), out=tmp_path / "run", resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before


class Interrupts:
    """A site at which somebody presses Ctrl-C in a round; repeated, the run goes on."""

    def __init__(self, round_: int) -> None:
        self.round, self.pressed = round_, False

    def __call__(self, shareable: Shareable, ctx: FLContext) -> Shareable:
        if ctx.round == self.round and not self.pressed:
            self.pressed = True
            raise KeyboardInterrupt
        return shareable

    def __repr__(self) -> str:
        return "Interrupts()"


def test_an_interrupted_run_is_paused_with_a_report_and_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(_: Any) -> bytes:
        raise AssertionError("a picture takes seconds, and the run goes on")

    monkeypatch.setattr("hansa.record.plot.render", drawn)
    one = hs.Job("means", job(rounds=3).workflow, filters=[Interrupts(2)])
    with pytest.raises(Interrupted):
        simulate(one, sites(0, 1), out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "paused"
    assert (tmp_path / "run" / "report.html").exists()


def test_a_run_interrupted_before_its_first_task_is_paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("hansa.simulation.engine.crew_of", interrupted)
    with pytest.raises(Interrupted):
        simulate(job(), sites(0, 1), out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "paused"


class Drifts(Means):
    """A learner that never gives the same bits twice."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def fit(self, model: Any, data: Any, config: Any, *, rng: Any, abort: Any) -> Any:
        self.times += 1
        update = super().fit(model, data, config, rng=rng, abort=abort)
        return update._replace(delta={"w": np.full(2, self.times, np.float32)})


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_run_that_is_not_deterministic_resumes_though_its_bits_differ(tmp_path: Path, deterministic: bool) -> None:
    one = hs.Job("drifts", fedavg(Drifts(), rounds=3), filters=[(press := Interrupts(2))])
    data = FederatedRows(["a", "b"], lambda slot: rows(8, seed=slot, valid=4))
    press.round = 99
    folder = tmp_path / "run"
    with pytest.raises(Stop):
        simulate(hs.Job("drifts", Killed(one.workflow, 2), filters=one.filters), data, out=folder, deterministic=deterministic)
    (folder / "checkpoints" / "round-2.safetensors").unlink()  # round 2 is trained again, and its evaluation asked for again
    if deterministic:
        with pytest.raises(ReplayError, match=r"task 'evaluate_valid'"):
            simulate(one, data, out=folder, resume=True, deterministic=True)
    else:
        assert len(simulate(one, data, out=folder, resume=True, deterministic=False).metrics) == 3
        assert json.loads((folder / "run.json").read_text())["deterministic"] is False


def test_a_folder_in_which_a_run_is_under_way_is_refused_to_another(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    whole = stopped(1, folder)
    told: list[str] = []

    def meet(federation: Any) -> None:
        with pytest.raises(InputError, match=rf"already running; .*got process {os.getpid()} ") as caught:
            simulate(met, sites(0), out=folder, resume=True)
        told.append(str(caught.value))

    met = hs.Job("met", meet)
    simulate(met, sites(0), out=(folder := tmp_path / "met"))
    assert len(told) == 1
    with running(tmp_path / "run"), pytest.raises(InputError, match="already running"):
        simulate(whole, sites(0, 1), out=tmp_path / "run", resume=True)
    assert len(simulate(whole, sites(0, 1), out=tmp_path / "run", resume=True).metrics) == 3


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    assert simulate(job(), sites(0), out=tmp_path / "run").metrics


def test_a_run_that_ends_before_it_began_leaves_the_folder_empty(tmp_path: Path) -> None:
    class Unread(hs.Job):
        @property
        def hash(self) -> str:
            raise ConfigError("no hash")

    with pytest.raises(ConfigError, match="no hash"):
        simulate(Unread("unread", job().workflow), sites(0), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"job": "digits.py:job"}, "job"),
        ({"job": fedavg(Means(), rounds=1)}, "job"),
        ({"faults": {"dropout": 0.5}}, "faults"),
        ({"settings": {"workers": 2}}, "settings"),
        ({"out": 3}, "out"),
        ({"deterministic": "no"}, "deterministic"),
        ({"keep_updates": 1}, "keep_updates"),
        ({"keep_updates": True}, "keep_updates"),
    ],
)
def test_an_argument_of_another_kind_is_named(arguments: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        simulate(**{"job": job(), "data": sites(0), **arguments})
    assert caught.value.path == path


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_it_says_so(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = stopped(2, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "round-2.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes({"cut": data[: len(data) // 2], "flip": data, "empty": bytearray()}[damage]))
    resumed = simulate(whole, sites(0, 1), out=tmp_path / "run", resume=True)
    assert "round-2.safetensors was passed over" in capsys.readouterr().err
    assert trees.equal(resumed.model, simulate(whole, sites(0, 1)).model)
    assert [record["round"] for record in lines(tmp_path / "run")] == [1, 2, 3]


def test_when_every_checkpoint_is_damaged_the_error_names_each_and_the_run_is_failed(tmp_path: Path) -> None:
    whole = stopped(1, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "round-1.safetensors").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"round-1\.safetensors was passed over"):
        simulate(whole, sites(0, 1), out=tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "failed"


def test_a_run_folder_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    whole = stopped(1, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(VersionError, match=r"newer Hansa.*pip install -U hansa"):
        simulate(whole, sites(0, 1), out=tmp_path / "run", resume=True)


def test_a_run_goes_on_only_with_its_own_job_seed_and_sites(tmp_path: Path) -> None:
    whole = stopped(1, tmp_path / "run")
    with pytest.raises(ConfigError, match="the job has changed"):
        simulate(job(rounds=4), sites(0, 1), out=tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match="another seed"):
        simulate(whole, sites(0, 1), seed=9, out=tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match=r"other sites; .*expected 2; got 3"):
        simulate(whole, sites(0, 1, 2), out=tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match=r"other sites; .*path slot 0; expected a; got b"):
        simulate(whole, sites(1, 0), out=tmp_path / "run", resume=True)


def test_a_folder_that_is_no_run_or_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        simulate(job(), sites(0), out=tmp_path)
    with pytest.raises(InputError, match=r"no run\.json"):
        simulate(job(), sites(0), out=tmp_path, resume=True)
    with pytest.raises(ConfigError, match="resumed from its folder"):
        simulate(job(), sites(0), resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


class Tally(hs.Executor):
    """Counts at the site, in its memory, how often it was asked."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        assert fl_ctx.memory is not None
        before = fl_ctx.memory.get("asked") or {"n": np.array(0)}
        after = np.asarray(before["n"]) + 1
        fl_ctx.memory.put("asked", {"n": after})
        return Shareable({"n": after * (fl_ctx.slot + 1)})


class Asks:
    """A workflow without checkpoints: asks each site `times`, and reports the sums; stops before step `stop`."""

    def __init__(self, times: int = 4, *, stop: int | None = None, name: str = "tally", start: int = 0) -> None:
        self.times, self.stop, self.name, self.start = times, stop, name, start

    def __call__(self, federation: Any) -> list[int]:
        sums: list[int] = []
        for number in range(1, self.times + 1):
            if number == self.stop:
                raise Stop
            body = {"sum": np.array(sum(sums) + self.start)}
            replies = federation.task(Task(self.name, Shareable(body)), range(len(federation.sites)), Policy())
            sums.append(sum(int(np.asarray(reply.shareable.body["n"])) for reply in replies))
            federation.report({"global": {"sum": sums[-1]}})
        return sums


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_workflow_without_checkpoints_is_replayed_from_the_record(tmp_path: Path, stop: int) -> None:
    straight = simulate(hs.Job("tally", Asks(), executor=Tally()), sites(0, 1), out=tmp_path / "straight")
    assert straight.value == [3, 6, 9, 12]  # each site answers how often it was asked, times its slot + 1
    folder = tmp_path / "killed"
    with pytest.raises(Stop):
        simulate(hs.Job("tally", Asks(stop=stop), executor=Tally()), sites(0, 1), out=folder)
    resumed = simulate(hs.Job("tally", Asks(), executor=Tally()), sites(0, 1), out=folder, resume=True)
    assert resumed.value == straight.value
    assert lines(folder) == lines(tmp_path / "straight")
    assert {slot: trees.flatten(kept)["asked/n"].tolist() for slot, kept in resumed.memory.items()} == {0: 4, 1: 4}


@pytest.mark.parametrize(
    ("other", "step"), [(Asks(name="other"), 1), (Asks(start=1), 1), (Asks(times=2), 3)], ids=["name", "body", "end"]
)
def test_a_workflow_that_asks_for_something_else_on_resume_stops_and_names_the_step(tmp_path: Path, other: Asks, step: int) -> None:
    with pytest.raises(Stop):
        simulate(hs.Job("tally", Asks(stop=4), executor=Tally()), sites(0, 1), out=tmp_path / "run")
    with pytest.raises(ReplayError, match=f"differs at step {step}"):
        simulate(hs.Job("tally", other, executor=Tally()), sites(0, 1), out=tmp_path / "run", resume=True)
    resumed = simulate(hs.Job("tally", Asks(), executor=Tally()), sites(0, 1), out=tmp_path / "run", resume=True)
    assert resumed.value == [3, 6, 9, 12]  # nothing was lost


def test_the_model_of_a_job_that_trains_none_is_an_error_that_points_to_the_value() -> None:
    result = simulate(hs.Job("tally", Asks(), executor=Tally()), sites(0))
    assert not isinstance(result.value, Outcome)
    with pytest.raises(ConfigError, match=r"trains no model.*`\.value`"):
        _ = result.model


class Descent:
    """A workflow of one's own with checkpoints whose state is not that of `Rounds`."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop

    def __call__(self, federation: Any) -> float:
        saved = federation.restore()
        done, w = (0, 0.0) if saved is None else (saved[0], float(np.asarray(saved[1]["w"])))
        for number in range(done + 1, 4):
            replies = federation.task(Task("tally", Shareable({"w": np.array(w)}), round=number), range(2), Policy())
            w += sum(float(np.asarray(reply.shareable.body["n"])) for reply in replies)
            federation.report({"global": {"w": np.float32(w)}})
            if number == self.stop:
                raise Stop
            federation.checkpoint(number, {"w": np.array(w)}, {"seen": np.int64(number)})
        return w


def test_a_workflow_with_checkpoints_of_its_own_resumes_from_them_with_the_sites_memories(tmp_path: Path) -> None:
    straight = simulate(hs.Job("own", Descent(), executor=Tally()), sites(0, 1), out=tmp_path / "straight", keep_updates=True)
    assert straight.value == 3 + 6 + 9
    with pytest.raises(Stop):
        simulate(hs.Job("own", Descent(stop=2), executor=Tally()), sites(0, 1), out=tmp_path / "killed")
    resumed = simulate(hs.Job("own", Descent(), executor=Tally()), sites(0, 1), out=tmp_path / "killed", resume=True)
    assert resumed.value == straight.value
    assert lines(tmp_path / "killed") == lines(tmp_path / "straight")
