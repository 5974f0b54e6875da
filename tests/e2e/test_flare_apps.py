"""Apps in the style of FLARE 2.0, run as users run them."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.e2e.flare_apps import APPS, GOLDEN, app, flow, sag, validated

from hansa.cli import main
from hansa.compat.flare import wire
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.fl_constant import FedEventHeader
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.app_event_type import AppEventType
from hansa.compat.flare.job import Sites, job
from hansa.compat.flare.site import AppExecutor
from hansa.core import executor as ours
from hansa.core import task as core
from hansa.errors import RunError
from hansa.simulation.engine import Result, simulate
from hansa.simulation.faults import Faults

KEY = "numpy_key"


def play(folder: Path, sites: int = 2, **options: Any) -> Result:
    return simulate(job(folder, workspace=folder.parent / "work"), Sites.of(sites), **options)


def array(result: Result) -> Any:
    return np.asarray(result.model[KEY]).tolist()


def test_hello_numpy_sag_runs_as_it_is_and_gives_what_flare_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    code = main(["run", "--flare", str(APPS / "hello-numpy-sag"), "--sites", "2", "--out", str(run), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (code, told["status"], told["rounds"]) == (0, "completed", 3)
    assert load_file(run / "model.safetensors")["numpy_key"].tolist() == GOLDEN
    assert np.load(run / "workspace/server/run_1/models/server.npy").tolist() == GOLDEN
    assert np.load(run / "workspace/site-2/run_1/model/best_numpy.npy").tolist() == GOLDEN
    assert "INFO HelloTrainer [identity=site-2, run=1]: round 2: [[4.0, 5.0" in (run / "workspace/log.txt").read_text()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["round"], sorted(line["sites"])) for line in lines] == [(number, ["site-1", "site-2"]) for number in (1, 2, 3)]


def test_events_come_in_flare_s_order_at_server_and_site(tmp_path: Path) -> None:
    folder = app(tmp_path / "app", "NPTrainer", [sag(1)], components=[{"id": "diary", "path": "parts.Diary"}])
    play(folder)
    server = (tmp_path / "work/server/run_1/app_server/diary.txt").read_text().split()
    wanted = (
        "_about_to_start_run _start_run _initial_model_loaded _start_workflow _training_started _round_started "
        "_before_contribution_accept _after_contribution_accept _before_contribution_accept _after_contribution_accept "
        "_before_aggregation _after_aggregation _before_model_update _after_model_update _before_save_model _after_save_model "
        "_round_done _end_workflow _about_to_end_run _end_run"
    )
    assert [event for event in server if event in wanted.split()] == wanted.split()
    site = (tmp_path / "work/site-1/run_1/app_site-1/diary.txt").read_text().split()
    steps = "before_task_data_filter after_task_data_filter before_task_execution after_task_execution before_task_result_filter"
    first = "about_to_start_run start_run before_pull_task after_pull_task"
    steps = f"{first} {steps} after_task_result_filter before_send_task_result after_send_task_result"
    assert [event.removeprefix("_") for event in site] == [*steps.split(), "about_to_end_run", "end_run"]


def test_differences_are_averaged_and_what_a_site_made_public_reaches_the_server(tmp_path: Path) -> None:
    result = play(app(tmp_path / "app", "parts.DiffTrainer", [sag(2)], server={"KIND": "WEIGHT_DIFF"}))
    assert array(result) == [[4, 5, 6], [7, 8, 9], [10, 11, 12]]  # (1 + 2) / 2 a round


def test_the_first_model_may_come_from_the_sites(tmp_path: Path) -> None:
    flows = [flow("InitializeGlobalWeights"), sag(1, persistor_id="")]
    result = play(app(tmp_path / "app", "parts.DiffTrainer", flows, server={"KIND": "WEIGHT_DIFF"}))
    assert np.asarray(result.model["w"]).tolist() == [11.5, 11.5]


def test_a_cycle_passes_the_model_on_from_site_to_site(tmp_path: Path) -> None:
    result = play(app(tmp_path / "app", "NPTrainer", [flow("CyclicController", num_rounds=2)], args={"delta": 1}), sites=3)
    assert (array(result), len(result.metrics)) == ([[7, 8, 9], [10, 11, 12], [13, 14, 15]], 2)


def test_models_of_sites_and_server_are_validated_everywhere(tmp_path: Path) -> None:
    result = play(validated(tmp_path / "app"))
    value = {"accuracy": pytest.approx(sum(sum(row) for row in GOLDEN) / 12)}
    row = {"site-1": value, "site-2": value, "SRV_server": value}
    assert result.value[1] == {"cross_site_val": {"site-1": row, "site-2": row}}
    written = tmp_path / "work/server/run_1/cross_site_val/cross_val_results.json"
    assert json.loads(written.read_text()) == result.value[1]["cross_site_val"]


def test_filters_run_in_order_on_data_and_results_at_both_sides(tmp_path: Path) -> None:
    def chain(*steps: dict[str, float]) -> list[dict[str, Any]]:
        return [{"tasks": ["train"], "filters": [{"path": "parts.Times", "args": step} for step in steps]}]

    outgoing, incoming = chain({"by": 2.0}, {"plus": 1.0}), chain({"plus": 3.0})
    leaving, arriving = chain({"by": 10.0}), chain({"plus": 0.5}, {"by": 2.0})
    folder = app(
        tmp_path / "app",
        "NPTrainer",
        [sag(1)],
        server={"task_data_filters": outgoing, "task_result_filters": arriving},
        task_data_filters=incoming,
        task_result_filters=leaving,
    )
    # out: 2x + 1, in: + 3, trained: + 1, leaving: 10 x, arriving: (+ 0.5) 2 x
    assert array(play(folder))[0] == [(10 * (2 * x + 1 + 3 + 1) + 0.5) * 2 for x in (1, 2, 3)]


def test_statistics_are_asked_for_once_and_processed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flows = [flow("BroadcastAndProcess", processor="statistics", task_name="count", min_responses_required=3)]
    server = {"components": [{"id": "statistics", "path": "parts.Statistics"}]}
    with caplog.at_level("INFO"):
        assert play(app(tmp_path / "app", "parts.Counts", flows, server=server), sites=3).value is None
    assert "rows: 60" in caplog.text


def test_what_executors_stream_reaches_receivers_at_the_server(tmp_path: Path) -> None:
    folder = app(
        tmp_path / "app",
        "parts.Streams",
        [flow("parts.Once")],
        server={"components": [{"id": "receiver", "path": "parts.Listens"}, {"id": "board", "name": "TBAnalyticsReceiver"}]},
        components=[
            {"id": "sender", "name": "AnalyticsSender"},
            {"id": "convert", "name": "ConvertToFedEvent", "args": {"events_to_convert": ["analytix_log_stats"]}},
        ],
    )
    play(folder, out=tmp_path / "run")
    heard = (tmp_path / "work/server/run_1/app_server/heard.txt").read_text().splitlines()
    assert heard == [f"site-{site} loss {1.0 / step} {step}" for site in (1, 2) for step in (2, 1)]
    for site in ("site-1", "site-2"):
        (board,) = (tmp_path / "work/server/run_1/tb_events" / site).iterdir()
        assert board.read_bytes().count(b"loss") == 2
    live = [json.loads(line) for line in (tmp_path / "run/live.jsonl").read_text().splitlines()]
    assert [(line["site"], line["values"], line["step"]) for line in live[:1]] == [("site-1", {"loss": 1.0}, 1)]


def test_a_site_s_trouble_is_its_own_return_code_and_the_others_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = play(app(tmp_path / "app", "parts.Troubled", [sag(2)]), sites=6)
    assert array(result) == [[3, 4, 5], [6, 7, 8], [9, 10, 11]]  # site-4 alone
    for line in (
        "result of 'site-1' in round 0 ignored: EXECUTION_EXCEPTION",
        "result of 'site-2' in round 0 ignored: BAD_TASK_DATA",
        "result of 'site-3' in round 0 ignored: EXECUTION_RESULT_ERROR",
        "result of 'site-5' in round 0 ignored: EXECUTION_EXCEPTION",
        "result of 'site-6' in round 0 ignored: TASK_RESULT_FILTER_ERROR",
        "ValueError: disk full",
        "this cannot be sent; at path DXO/data/f",
    ):
        assert line in caplog.text
    assert "'site-5' in round 1" not in caplog.text  # a RuntimeError: it has left the run


def test_an_error_that_is_not_to_be_ignored_ends_the_run(tmp_path: Path) -> None:
    folder = app(tmp_path / "app", "parts.Troubled", [sag(2, ignore_result_error=False)])
    with pytest.raises(RunError, match="the app ended the run: result of 'site-1' in round 0: EXECUTION_EXCEPTION"):
        play(folder)


def test_messages_beside_tasks_are_refused_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RunError, match="EXECUTION_EXCEPTION"):
        play(app(tmp_path / "app", "parts.Asks", [sag(1, ignore_result_error=False)]))
    assert "no messages beside tasks" in caplog.text
    assert "topic 'mood'" in caplog.text
    assert "send_aux_request" in caplog.text


def test_a_run_in_which_nothing_can_happen_any_more_ends_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nothing can happen any more.*site-1: the data are gone; site-2: the data are gone"):
        play(app(tmp_path / "one", "parts.Panics", [sag(2)]))
    with pytest.raises(RunError, match=r"nothing can happen any more; at task 'other'.*do its targets exist"):
        play(app(tmp_path / "two", "parts.Counts", [flow("parts.Once", wait=False)]))


def test_a_slow_or_lost_site_is_waited_for_as_long_as_the_app_says(tmp_path: Path) -> None:
    folder = app(tmp_path / "app", "NPTrainer", [sag(6, wait_time_after_min_received=5, train_timeout=60)])
    slow = play(folder, sites=6, faults=Faults(straggle=0.3, slowdown=20.0), seed=2)
    assert array(slow)[0] == [7, 8, 9]
    assert 2 <= min(len(line["sites"]) for line in slow.metrics) < 6
    lost = play(app(tmp_path / "lost" / "app", "NPTrainer", [sag(3)]), sites=6, faults=Faults(dropout=0.3), seed=1)
    assert array(lost) == GOLDEN


@pytest.mark.parametrize("kind", ["fedavg", "fedprox", "fedopt", "scaffold"])
def test_torch_learners_train_under_each_algorithm(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("torch")
    folder = tmp_path / "app"
    shutil.copytree(APPS / "digits-torch", folder)
    paths = {side: folder / "config" / f"config_fed_{side}.json" for side in ("server", "client")}
    server, client = (json.loads(paths[side].read_text()) for side in ("server", "client"))
    learner = client["components"][0]
    by_id = {each["id"]: each for each in server["components"]}
    if kind == "fedprox":
        learner["args"]["mu"] = 0.01
    elif kind == "fedopt":
        optimizer = {"path": "torch.optim.SGD", "args": {"lr": 1.0, "momentum": 0.3}, "config_type": "dict"}
        by_id["shareable_generator"].update(name="PTFedOptModelShareableGenerator", args={"optimizer_args": optimizer})
    elif kind == "scaffold":
        learner["path"] = "digits_learner.DigitsScaffoldLearner"
        server["workflows"][0]["name"] = "ScatterAndGatherScaffold"
        by_id["aggregator"]["args"] = {"expected_data_kind": dict.fromkeys(("_model_weights_", "scaffold_c_diff"), "WEIGHT_DIFF")}
    paths["server"].write_text(json.dumps(server))
    paths["client"].write_text(json.dumps(client))
    runs = [play(folder, sites=4, seed=5) for _ in range(2 if kind == "scaffold" else 1)]
    outcome, matrix = runs[0].value
    best = [values["SRV_FL_global_model.pt"]["accuracy"] for values in matrix["cross_site_val"].values()]
    assert min(best) > 0.5
    accuracies = [line["global"]["accuracy"] for line in runs[0].metrics]
    assert accuracies[0] < 0.25 < accuracies[-1]
    assert outcome.best_round in (1, 2, 3)
    assert {array.tobytes() for run in runs for array in [np.asarray(run.model["layers.0.weight"])]} == {
        np.asarray(outcome.model["layers.0.weight"]).tobytes()
    }


def test_an_app_that_brings_torch_trains_the_same_model_where_torch_was_loaded_before(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    loaded = simulate(job(APPS / "digits-torch"), Sites.of(4), seed=5)
    command = [sys.executable, "-m", "hansa.cli", "run", "--flare", str(APPS / "digits-torch"), "--sites", "4", "--seed", "5"]
    subprocess.run([*command, "--out", str(tmp_path / "fresh")], check=True, capture_output=True, timeout=100)
    fresh = load_file(tmp_path / "fresh" / "model.safetensors")
    assert fresh["layers.0.weight"].tobytes() == np.asarray(loaded.model["layers.0.weight"]).tobytes()


class Hostile(ours.Executor):
    """Site 1 answers nonsense of several kinds, site 2 tells events that are not its to tell; the others do as the app says."""

    def __init__(self, app: AppExecutor) -> None:
        self._app, self._times = app, 0

    def execute(
        self, task_name: str, shareable: core.Shareable, fl_ctx: core.FLContext, abort_signal: core.Signal
    ) -> core.Shareable:
        said = wire.unpack(self._app.execute(task_name, shareable, fl_ctx, abort_signal))
        if fl_ctx.slot == 0:
            nonsense = ({"result": 1}, {**said, "props": {3: "x"}}, {**said, "events": ["x"]}, {**said, "result": bare()})
            self._times += 1
            return wire.pack(nonsense[self._times % 4]) if self._times % 5 else core.Shareable({"content": np.zeros(2)})
        if fl_ctx.slot == 1:
            names = (EventType.FATAL_SYSTEM_ERROR, EventType.END_RUN, AppEventType.ROUND_DONE)
            return wire.pack({**said, "events": [told(each) for each in names]})
        return wire.pack(said)

    def close(self) -> None:
        self._app.close()


def bare() -> Shareable:
    """A shareable whose headers are none."""
    made = Shareable()
    made["__headers__"] = 7
    return made


def told(event: str) -> Shareable:
    made = Shareable()
    made.set_header(FedEventHeader.EVENT_TYPE, event)
    return made


def test_a_site_that_answers_nonsense_or_tells_the_framework_s_own_events_ends_nothing(tmp_path: Path) -> None:
    honest = job(app(tmp_path / "app", "NPTrainer", [sag(6)]), workspace=tmp_path / "work")
    assert isinstance(honest.executor, AppExecutor)
    result = simulate(dataclasses.replace(honest, executor=Hostile(honest.executor)), Sites.of(3))
    assert array(result) == (np.arange(1, 10).reshape(3, 3) + 6).tolist()
    assert [(line["round"], sorted(line["sites"])) for line in result.metrics] == [
        (number, ["site-2", "site-3"]) for number in range(1, 7)
    ]
    diary = (tmp_path / "work/server/run_1/app_server/diary.txt").read_text().split()
    counts = [diary.count(each) for each in ("_end_run", "_round_done", "_fatal_system_error")]
    assert counts == [1, 6 + 7, 0]  # it is told with each answer, the last one's too, and makes no round
