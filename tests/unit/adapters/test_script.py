"""A script in processes of its own: what it is given, what comes back, and what becomes of one that fails, hangs or is killed."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa.adapters.script import ScriptExecutor, ScriptLearner
from hansa.adapters.script.learner import beside
from hansa.core import trees
from hansa.core.protocols import FitConfig, Update
from hansa.core.task import Aborted, FLContext, Shareable, Signal
from hansa.data.rows import Rows
from hansa.errors import ClientError, ConfigError, InputError, SpecError
from hansa.simulation.sites import Tracks

MODEL = {"w": np.array([1.0, 2.0]), "on": np.array([True, False])}
HEAD = "import os, sys, time\nfrom pathlib import Path\nimport numpy as np\nimport hansa.client as hc\n"
LOOP = "while task := hc.receive():\n    model = task.params\n"


class Script:
    """A script's text as a learner; what it told is in `notes` beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.learner: ScriptLearner | None = None

    def learns(self, text: str, **how: Any) -> ScriptLearner:
        if self.learner is not None:
            self.learner.close()
        path = self.folder / "train.py"
        path.write_text(HEAD + f"NOTES = {str(self.folder / 'notes')!r}\n" + text)
        self.learner = ScriptLearner(path, init=MODEL, **how)
        return self.learner

    def fit(self, number: int = 1, *, site: str = "north", slot: int = 0, **how: Any) -> tuple[Update, Any]:
        assert self.learner is not None
        ctx = FLContext(job="digits", run="r1", site=site, slot=slot, round=number, seed=5, population=3, data="digits", **how)
        return self.learner.fit_at(MODEL, self.data, FitConfig(), ctx=ctx, abort=self.abort)

    data: Any = "/srv/digits"
    abort = Signal()

    @property
    def notes(self) -> list[str]:
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    made = Script(tmp_path)
    made.abort = Signal()
    yield made
    if made.learner is not None:
        made.learner.close()
        assert not list(tmp_path.glob("hansa-script-*"))


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


NOTE = "\ndef note(*words):\n    with open(NOTES, 'a') as file:\n        print(*words, file=file)\n"


def test_weights_become_a_change_metrics_are_named_for_training_and_one_process_serves_a_sites_rounds(script: Script) -> None:
    text = NOTE + "note('begins', os.getpid(), sys.argv[1:], Path.cwd().parent == Path(NOTES).parent, hc.data())\n" + LOOP
    text += "    model['w'] += task.round\n    model['on'] = ~model['on']\n"
    text += "    note(task.site, task.round, sorted(task.config.items()))\n    print('to nobody')\n"
    text += "    hc.send(model, {'loss': 0.25}, examples=10)\nnote('ends')\n"
    learner = script.learns(text, arguments=["--lr", "0.1"], config={"epochs": 2})
    update, said = script.fit()
    assert (update.delta["w"].tolist(), update.delta["on"].tolist()) == ([1.0, 1.0], [True, True])  # type: ignore[union-attr]
    assert (update.examples, update.loss, said) == (10, 0.25, {"train_loss": 0.25})
    script.fit(2)
    script.fit(site="south", slot=1)
    learner.close()
    begun = [each for each in script.notes if each.startswith("begins")]
    assert len({each.split()[1] for each in begun}) == len(begun) == 2
    assert begun[0].endswith("['--lr', '0.1'] True /srv/digits")
    tasks = ["north 1 [('epochs', 2)]", "north 2 [('epochs', 2)]", "south 1 [('epochs', 2)]"]
    assert [each for each in script.notes if "epochs" in each] == tasks
    assert script.notes.count("ends") == 2  # what stands after the loop runs, too


def test_what_a_script_tracks_is_told_while_it_works(script: Script) -> None:
    script.learns(LOOP + "    hc.track(3, 4, loss=0.5, slope=float('nan'))\n    hc.send(model)\n    hc.track(4, 4)\n")
    tracks = Tracks()
    script.fit(tracker=tracks)
    (told,) = tracks
    assert (told.step, told.of, told.values["loss"]) == (3, 4, 0.5)
    assert np.isnan(told.values["slope"])


def test_a_change_is_taken_as_it_is_and_rows_reach_the_script(script: Script) -> None:
    script.learns(LOOP + "    hc.send({'w': hc.data().train.x.sum(0), 'on': model['on']}, kind='delta')\n")
    script.data = Rows(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.zeros(3), parts=np.array([0, 0, 2]))
    update, said = script.fit()
    assert update.delta["w"].tolist() == [4.0, 6.0]  # type: ignore[union-attr]  # a leaf
    assert (update.examples, said) == (1, {})


def test_an_evaluation_is_asked_for_by_name_and_part(script: Script) -> None:
    learner = script.learns(LOOP + "    hc.send(metrics={'accuracy': 0.5 if task.config['part'] == 'test' else 0.1}, examples=8)\n")
    ctx = FLContext(site="north", population=1)
    values, rows = learner.evaluate_at(MODEL, None, "test", ctx=ctx, abort=Signal())
    assert (dict(values), rows) == ({"accuracy": 0.5}, 8)


@pytest.mark.parametrize(
    ("text", "message", "trace"),
    [
        ("def train(model):\n    return model['bias']\n" + LOOP + "    hc.send(train(model))\n", "KeyError: 'bias'", "in train"),
        (LOOP + "    hc.send({'w': np.zeros(3), 'on': model['on']})\n", "a leaf does not fit; at path params/w", "line 8"),
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'", "line 6"),
        ("def f(:\n", "SyntaxError", "train.py"),
        (LOOP + "    sys.exit(3)\n", "SystemExit: train.py ended with code 3 in the middle of a task", ""),
        ("print('trained')\n", "SystemExit: train.py ended with code 0 before it called hansa.client.receive()", ""),
        (LOOP + "    hc.data('other')\n", "DataError: a script cannot be given a set", "line 8"),
    ],
)
def test_what_went_wrong_in_a_script_is_told_with_its_own_traceback(script: Script, text: str, message: str, trace: str) -> None:
    script.learns(text)
    with pytest.raises(ClientError) as caught:
        script.fit(load=lambda _: {1, 2})
    assert message in str(caught.value)
    assert trace in caught.value.trace
    assert "start.py" not in caught.value.trace
    assert "runpy" not in caught.value.trace


def test_after_a_failure_the_next_task_gets_a_new_process(script: Script) -> None:
    script.learns(LOOP + "    if task.round == 1:\n        raise ValueError('bad rows')\n    hc.send(model)\n")
    with pytest.raises(ClientError, match="ValueError: bad rows"):
        script.fit()
    assert trees.norm(script.fit(2)[0].delta) == 0.0


def test_a_script_that_a_signal_ended_is_started_again_and_draws_the_same_numbers(script: Script) -> None:
    text = NOTE + LOOP + "    drawn = np.random.standard_normal(2)\n    note(json.dumps(drawn.tolist()))\n"
    text += "    if len(open(NOTES).readlines()) < 3:\n        os.kill(os.getpid(), 9)\n"
    script.learns("import json\n" + text + "    hc.send(model | {'w': model['w'] + drawn})\n")
    update, _ = script.fit()
    assert len(script.notes) == 3
    assert len(set(script.notes)) == 1
    assert np.allclose(update.delta["w"], json.loads(script.notes[0]))  # type: ignore[arg-type]  # a leaf
    script.learns(LOOP + "    os.kill(os.getpid(), 9)\n")
    with pytest.raises(ClientError, match=r"Killed: train.py was ended by SIGKILL \(out of memory\?\)"):
        script.fit()


def test_a_script_that_is_too_late_is_ended_and_its_children_with_it(script: Script) -> None:
    text = NOTE + LOOP + "    if os.fork() == 0:\n        note(os.getpid())\n        time.sleep(60)\n    time.sleep(60)\n"
    script.learns(text, timeout_s=2.0)
    with pytest.raises(ClientError, match="did not answer the task within"):
        script.fit()
    assert gone(int(script.notes[0]))


@pytest.mark.parametrize("listens", [True, False])
def test_an_abort_reaches_the_script_and_one_that_does_not_listen_is_ended(
    script: Script, listens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hansa.adapters.script.process.GRACE_S", 5.0 if listens else 0.2)
    wait = "    while not hc.aborted():\n        time.sleep(0.01)\n" if listens else "    time.sleep(60)\n"
    text = NOTE + LOOP + "    note(os.getpid())\n    if task.round == 2:\n        hc.send(model)\n        continue\n" + wait
    script.learns(text)
    fell: list[BaseException] = []

    def fit() -> None:
        try:
            script.fit()
        except Aborted as error:
            fell.append(error)

    thread = threading.Thread(target=fit)
    thread.start()
    while not script.notes:
        thread.join(0.01)
    script.abort.trigger("the round is over")
    thread.join(20)
    assert str(fell[0]) == "the round is over"
    script.abort = Signal()
    script.fit(2)
    assert len(set(script.notes)) == (1 if listens else 2)


def test_of_more_sites_than_are_kept_the_one_asked_longest_ago_is_ended(script: Script) -> None:
    script.learns(NOTE + LOOP + "    hc.send(model)\nnote('ends', task is None)\n", keep=1)
    script.fit()
    assert script.notes == []
    script.fit(site="south", slot=1)
    assert script.notes == ["ends True"]


PARENT = """
import sys, time
from pathlib import Path
import numpy as np
from hansa.adapters.script import ScriptLearner
from hansa.core.protocols import FitConfig
from hansa.core.task import FLContext, Signal

learner = ScriptLearner(Path(sys.argv[1]), init={})
learner.fit_at({"w": np.zeros(1)}, None, FitConfig(), ctx=FLContext(population=1), abort=Signal())
"""


def test_when_the_process_above_is_killed_the_script_ends_whatever_it_is_doing(script: Script, tmp_path: Path) -> None:
    script.learns(NOTE + LOOP + "    note(os.getpid())\n    while True:\n        pass\n")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "train.py")], env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    while not script.notes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert parent.wait(0.01) is None
    parent.kill()
    parent.wait()
    assert gone(int(script.notes[0]))
    for left in tmp_path.glob("hansa-script-*"):  # a killed process tidies nothing
        left.joinpath("task-1.safetensors").unlink(missing_ok=True)
        left.rmdir()


def test_an_executor_serves_any_task_with_whatever_the_script_sends(tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text(
        HEAD
        + "while task := hc.receive():\n    hc.send({'n': np.array(len(task.name) + task.params['n'])}, {'x': task.config['x']})\n"
    )
    executor = ScriptExecutor(tmp_path / "count.py")
    try:
        task = Shareable({"n": np.array(2.0)}, headers={"x": 0.5})
        reply = executor.execute("count", task, FLContext(site="north", population=1), Signal())
        assert (float(reply.body["n"]), reply.metrics) == (7.0, {"x": 0.5})  # type: ignore[arg-type]  # a leaf
    finally:
        executor.close()


def test_a_model_starts_from_a_file_a_mapping_a_module_or_a_function_of_the_seed(tmp_path: Path) -> None:
    import torch

    from hansa import tensors

    def net() -> torch.nn.Module:
        return torch.nn.Linear(2, 1)

    (tmp_path / "train.py").write_text("")
    tensors.save_tree(tmp_path / "start.safetensors", MODEL)
    script, rng = tmp_path / "train.py", np.random.default_rng
    learner = ScriptLearner(script, init=tmp_path / "start.safetensors")
    assert trees.equal(learner.init(rng(0)), MODEL)
    assert learner.files == [script, tmp_path / "start.safetensors"]
    before = torch.get_rng_state()
    first, again, other = (ScriptLearner(script, init=net).init(rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert trees.equal(first, again)
    assert not trees.equal(first, other)
    drawn = ScriptLearner(script, init=lambda rng: {"w": rng.random(2)}).init(rng(0))
    assert np.array_equal(drawn["w"], rng(0).random(2))  # type: ignore[arg-type]  # a leaf


def test_a_learner_prints_its_scripts_content_and_goes_to_other_processes_as_settings(script: Script) -> None:
    learner = script.learns(LOOP + "    hc.send(model)\n", metrics=("accuracy",))
    script.fit()
    text = repr(learner)
    assert text.startswith("ScriptLearner(train.py ")
    assert text.endswith(", init=<on=bool[2],w=float64[2]>, metrics=('accuracy',))")
    assert repr(pickle.loads(pickle.dumps(learner))) == text
    (script.folder / "train.py").write_text("pass\n")
    assert repr(learner) != text


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"metrics": "accuracy"}, "metrics are a sequence"),
        ({"honours": ("correction",)}, "no such term"),
        ({"config": {"f": print}}, "plain values"),
        ({"arguments": "--lr 0.1"}, "a list of words"),
        ({"keep": 0}, "keep"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"init": None}, "no model to start from"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, how: dict[str, Any], said: str) -> None:
    (tmp_path / "train.py").write_text("")
    with pytest.raises(ConfigError, match=said):
        ScriptLearner(tmp_path / "train.py", **({"init": MODEL} | how))


def test_what_an_algorithm_adds_to_steps_is_given_to_a_script_that_honours_it_and_refused_otherwise(script: Script) -> None:
    asked = FitConfig(proximal=0.1, lr=0.5)
    ctx = FLContext(site="north", population=1)
    learner = script.learns(LOOP + "    hc.send(model, task.config)\n")
    with pytest.raises(ConfigError, match="asks for proximal"):
        learner.fit_at(MODEL, None, asked, ctx=ctx, abort=Signal())
    learner = script.learns(LOOP + "    hc.send(model, task.config)\n", honours=["proximal"])
    assert learner.fit_at(MODEL, None, asked, ctx=ctx, abort=Signal())[1] == {"train_lr": 0.5, "train_proximal": 0.1}


def test_a_reply_that_went_around_the_door_is_checked_all_the_same(script: Script) -> None:
    around = "    from hansa.client.door import _doors\n    _doors[0]._spec = None\n    hc.send({'w': np.zeros(3)})\n"
    script.learns(LOOP + around)
    with pytest.raises(SpecError, match="params/on"):
        script.fit()


def test_a_script_is_found_beside_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert beside("train.py") == (tmp_path / "train.py").resolve()
    with pytest.raises(InputError, match=r"no such file; at path no_such\.py"):
        beside("no_such.py")


def gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether the process ends in time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(handle):
        return bool(select.select([handle], [], [], within_s)[0])
