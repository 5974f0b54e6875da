"""One task at every site, and what came of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hansa as hs
from hansa.core.protocols import Dataset
from hansa.core.task import FLContext
from hansa.core.values import pack
from hansa.data.federated import FederatedRows
from hansa.data.rows import Rows
from hansa.errors import ConfigError, TraceError
from hansa.learning import once
from hansa.learning.sequence import Sequence

SITES = [Rows(np.arange(n * 2.0).reshape(n, 2), np.zeros(n)) for n in (1, 2, 3)]
DATA = FederatedRows(["c", "b", "a"], lambda slot: SITES[slot])


def count(data: Dataset) -> dict[str, Any]:
    if len(data) == 2:
        raise ValueError("no")
    return {"rows": len(data), "sum": np.asarray(data.x).sum(axis=0)}


def test_a_plain_function_gives_what_each_site_gave_by_name_and_a_refusal_is_named(tmp_path: Path) -> None:
    result = hs.simulate(hs.Job("n", once(count)), DATA, out=tmp_path / "r")
    assert json.loads((tmp_path / "r" / "result.json").read_text()) == {
        "c": {"rows": 1, "sum": [0.0, 1.0]},
        "a": {"rows": 3, "sum": [6.0, 9.0]},
    }
    assert list(result.value) == ["c", "a"]
    assert result.metrics[0]["refused"][0]["site"] == "b"


def test_a_computation_gives_its_value_at_the_server() -> None:
    @hs.federated_computation
    def rows(data: hs.Clients[Dataset]) -> hs.Server[int]:
        return hs.federated_sum(hs.federated_map(len, data))

    result = hs.simulate(hs.Job("n", once(rows)), DATA)
    assert result.value == 6
    assert hs.Job("n", once(rows)).describe().startswith("job n on 'data': rows, once at every site")


def test_what_one_task_prepared_at_a_site_a_later_one_finds_there() -> None:
    def prepare(data: Dataset, *, ctx: FLContext) -> None:
        assert ctx.memory is not None
        ctx.memory.put("mean", {"x": np.asarray(data.x).mean(axis=0)})

    def look(data: Dataset, *, ctx: FLContext) -> float:
        kept = ctx.memory.get("mean") if ctx.memory else None
        return float(np.asarray(pack(kept)["x"])[0]) if kept else -1.0

    first, second = hs.simulate(hs.Job("n", Sequence(once(prepare), once(look))), DATA).value
    assert first == {"c": {}, "b": {}, "a": {}}
    assert second == {"c": 0.0, "b": 1.0, "a": 2.0}


def test_what_a_later_step_needs_is_remembered_and_not_asked_for_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def ask(data: Dataset) -> int:
        asked.append(1)
        return len(data)

    def cut(data: Dataset) -> int:
        if len(asked) == 3:
            asked.append(0)
            raise KeyboardInterrupt
        return len(data)

    job = hs.Job("n", Sequence(once(ask), once(cut)))
    with pytest.raises(hs.errors.Interrupted):
        hs.simulate(job, DATA, out=tmp_path / "r")
    first, second = hs.simulate(job, DATA, out=tmp_path / "r", resume=True).value
    assert asked == [1, 1, 1, 0]
    assert first == second == {"c": 1, "b": 2, "a": 3}


def test_what_is_no_one_shot_task_is_refused_when_the_job_is_made() -> None:
    @hs.federated_computation
    def stateful(model: hs.Server[float], data: hs.Clients[Dataset]) -> hs.Server[int]:
        return hs.federated_sum(hs.federated_map(len, data))

    @hs.federated_computation
    def open_(data: hs.Clients[Dataset]) -> hs.Clients[int]:
        return hs.federated_map(len, data)

    with pytest.raises(ConfigError) as caught:
        once(stateful)
    assert caught.value.path == "model"
    with pytest.raises(TraceError, match="returns client values"):
        once(open_)
    with pytest.raises(ConfigError, match="cannot be run like this"):
        once(count, attempts=0)
