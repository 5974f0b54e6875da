"""The script's end of the line: what comes in, what may leave, and what is said when a script gets it wrong."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from hansa.client import arrays, line
from hansa.client.door import Door, SiteRows
from hansa.client.line import Abort, Asks, Do, FromScript, Given, Needs, Sent, ToScript
from hansa.core.task import Shareable
from hansa.core.trees import Tree
from hansa.errors import DataError, HansaError, InputError, SpecError

MODEL: dict[str, Any] = {"w": np.zeros((2, 3), np.float32), "steps": np.array(4, np.int64)}


@dataclass
class Line:
    """Hansa's end, spoken by the test, and the door at the other."""

    folder: Path
    channel: socket.socket
    door: Door
    buffer: bytes = b""
    number: int = 0
    known: list[FromScript] = field(default_factory=list)

    def say(self, message: ToScript) -> None:
        self.channel.sendall(line.encode(message))

    def task(self, body: Tree = MODEL, **how: Any) -> None:
        self.number += 1
        arrays.write(line.task_file(self.folder, self.number), Shareable(body))
        asked = {"name": "train", "wants": "params", "round": 3, "seed": 7, "site": "north", "slot": 1, "sites": 4, **how}
        self.say(Do(number=self.number, job="digits", run="r1", **asked))

    def heard(self) -> FromScript:
        while b"\n" not in self.buffer:
            self.buffer += self.channel.recv(1 << 16)
        said, self.buffer = self.buffer.split(b"\n", 1)
        return line.from_script(said)

    def reply(self) -> Shareable:
        assert self.heard() == Asks(after=self.number - 1)
        assert self.heard() == Sent(number=self.number)
        return arrays.read(line.reply_file(self.folder, self.number))


@pytest.fixture
def hansa(tmp_path: Path) -> Iterator[Line]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Line(tmp_path, ours, Door(theirs, tmp_path))


def test_a_task_says_who_where_and_what_and_its_arrays_are_the_scripts_own(hansa: Line) -> None:
    hansa.task(config={"epochs": 2})
    task = hansa.door.receive()
    assert task is not None
    assert (task.name, task.round, task.site, task.slot, task.sites, task.config["epochs"]) == ("train", 3, "north", 1, 4, 2)
    task.params["w"] += 1.0
    assert not arrays.read(line.task_file(hansa.folder, 1)).body["w"].any()  # type: ignore[union-attr]  # a leaf


def test_a_torch_state_goes_into_a_module_and_back_with_half_precision_buffers_and_tied_weights(hansa: Line) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3)).to(torch.bfloat16)
    module[2].register_parameter("weight", next(module.parameters()))
    hansa.task(arrays.tree(module.state_dict()))
    task = hansa.door.receive()
    assert task is not None
    with torch.no_grad():
        next(module.parameters()).add_(1.0)
    before = task.state_dict()
    assert before["0.weight"].dtype == torch.bfloat16
    hansa.door.send(module.state_dict(), {"loss": torch.tensor(0.5)}, examples=12)
    reply = hansa.reply()
    assert reply.metrics == {"loss": 0.5}
    assert reply.headers == {"kind": "weights", "examples": 12}
    assert reply.body["1.num_batches_tracked"].dtype == np.int64  # type: ignore[union-attr]  # leaves
    moved = reply.body["0.weight"].astype(np.float32) - before["0.weight"].float().numpy()  # type: ignore[union-attr]
    assert reply.body["0.weight"].dtype == ml_dtypes.bfloat16  # type: ignore[union-attr]
    assert np.allclose(moved, 1.0, atol=0.01)
    module.load_state_dict(before)


@pytest.mark.parametrize(
    ("params", "options", "kind", "said"),
    [
        ({"w": np.zeros((2, 3), np.float32)}, {}, SpecError, "a leaf is missing; at path params/steps"),
        (MODEL | {"b": np.zeros(1)}, {}, SpecError, "params/b"),
        (MODEL | {"w": np.zeros((2, 3))}, {}, SpecError, "params/w; expected float32[2,3]; got float64[2,3]"),
        (MODEL | {"w": np.zeros((3, 2), np.float32)}, {}, SpecError, "expected float32[2,3]; got float32[3,2]"),
        (MODEL | {"w": "weights.pt"}, {}, SpecError, "not an array of numbers; at path w"),
        ([np.zeros(1)], {}, InputError, "a mapping from names to arrays"),
        (torch.nn.Linear(1, 1), {}, InputError, "model.state_dict()"),
        (None, {}, InputError, "asks for parameters"),
        (MODEL, {"kind": "gradient"}, InputError, "weights or delta"),
        (MODEL, {"examples": 0}, InputError, "examples count rows"),
        (MODEL, {"examples": 2.5}, InputError, "examples count rows"),
        (MODEL, {"metrics": {"loss": [1.0, 2.0]}}, InputError, "metrics/loss"),
        (MODEL, {"metrics": 0.5}, InputError, "a mapping from names to numbers"),
    ],
)
def test_what_does_not_fit_is_named_at_the_script_and_does_not_leave(
    hansa: Line, params: object, options: dict[str, Any], kind: type[HansaError], said: str
) -> None:
    hansa.task()
    hansa.door.receive()
    with pytest.raises(kind) as caught:
        hansa.door.send(params, **options)
    assert said in str(caught.value)
    hansa.door.send(MODEL)  # mended, it leaves
    assert hansa.reply().body.keys() == MODEL.keys()


def test_an_evaluation_sends_numbers_alone(hansa: Line) -> None:
    hansa.task(name="evaluate", wants="metrics")
    hansa.door.receive()
    with pytest.raises(InputError, match="metrics alone"):
        hansa.door.send(MODEL)
    hansa.door.send(metrics={"accuracy": np.float32(0.5), "loss": float("nan")}, examples=10)
    reply = hansa.reply()
    assert not reply.body
    assert reply.metrics["accuracy"] == 0.5
    assert np.isnan(reply.metrics["loss"])


def test_each_task_is_answered_once_and_in_turn(hansa: Line) -> None:
    with pytest.raises(InputError, match="no task to answer"):
        hansa.door.send(MODEL)
    hansa.task()
    hansa.door.receive()
    with pytest.raises(InputError, match="was not answered"):
        hansa.door.receive()
    hansa.door.send(MODEL)
    with pytest.raises(InputError, match="no task to answer"):
        hansa.door.send(MODEL)


def test_an_aborted_task_is_left_and_the_next_one_comes(hansa: Line) -> None:
    hansa.task()
    assert hansa.door.receive() is not None
    assert not hansa.door.aborted()
    hansa.say(Abort(number=1, reason="the round is over"))
    assert hansa.door.aborted()
    hansa.door.send(MODEL)  # nothing: nobody wants it
    assert not line.reply_file(hansa.folder, 1).exists()
    hansa.task(round=4)
    task = hansa.door.receive()
    assert task is not None
    assert task.round == 4
    assert not hansa.door.aborted()
    assert [hansa.heard(), hansa.heard()] == [Asks(after=0), Asks(after=1)]


def test_when_the_line_is_closed_there_is_nothing_more_to_do(hansa: Line) -> None:
    hansa.task()
    assert hansa.door.receive() is not None
    hansa.channel.close()
    assert hansa.door.aborted()
    hansa.door.send(MODEL)
    assert hansa.door.receive() is None


def test_the_global_generators_begin_at_the_tasks_seed_unless_the_script_says_no(hansa: Line) -> None:
    def draws() -> tuple[float, float, float]:
        hansa.door.send(MODEL)
        return random.random(), float(np.random.random()), float(torch.rand(1))  # noqa: NPY002, S311  as a script does

    found = []
    for seed in (7, 7, 8):
        hansa.task(seed=seed)
        hansa.door.receive()
        found.append(draws())
    assert found[0] == found[1]
    assert all(a != b for a, b in zip(found[1], found[2], strict=True))
    hansa.task(seed=8)
    hansa.door.receive(seed=False)
    assert draws() != found[2]


def test_data_come_as_a_path_or_as_rows_or_not_at_all_and_are_asked_for_once(hansa: Line, tmp_path: Path) -> None:
    x = np.arange(6.0).reshape(3, 2)
    parts = {"train": x, "valid": x[:0], "test": x[1:]}
    arrays.write(line.data_file(tmp_path, ""), Shareable({name: {"x": each, "y": each[:, 0]} for name, each in parts.items()}))
    hansa.task()
    hansa.say(Given(form="rows"))
    rows = hansa.door.data()
    assert isinstance(rows, SiteRows)
    assert (len(rows.train), len(rows.valid), len(rows.test), rows.test.y.tolist()) == (3, 0, 2, [2.0, 4.0])
    rows.train.x[0] = 9.0
    assert hansa.door.data() is rows
    hansa.say(Given(form="path", path="/srv/images"))
    assert hansa.door.data("images") == Path("/srv/images")
    hansa.say(Given(form="none", why="a script cannot be given a DataFrame"))
    with pytest.raises(DataError, match="DataFrame"):
        hansa.door.data("table")
    assert hansa.door.receive() is not None  # what came before the data is not lost
    assert [hansa.heard() for _ in range(3)] == [Needs(), Needs(label="images"), Needs(label="table")]


def test_a_script_that_runs_by_itself_is_told_how_to_join(tmp_path: Path) -> None:
    code = "import hansa.client as hc\nassert not hc.federated()\nhc.receive()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "this script runs by itself" in done.stderr
    assert "hansa run job.py:job" in done.stderr


def test_the_door_pulls_in_no_framework() -> None:
    code = (
        "import sys, hansa.client; print([name for name in ('torch', 'sklearn', 'cryptography', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
