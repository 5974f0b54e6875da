from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hansa.compat.flare.app import read
from hansa.compat.flare.build import Builder
from hansa.errors import ConfigError, InputError

SERVER: dict[str, Any] = {
    "format_version": 2,
    "ROUNDS": 4,
    "WHAT": "EIGHTS",
    "components": [
        {"id": "aggregator", "name": "InTimeAccumulateWeightedAggregator", "args": {"expected_data_kind": "W{WHAT}"}},
        {"id": "unused", "path": "no.such.Thing", "disabled": True},
    ],
    "workflows": [{"id": "flow", "name": "ScatterAndGather", "args": {"num_rounds": "{ROUNDS}", "train_task_name": "{no_such}"}}],
}
CLIENT: dict[str, Any] = {
    "format_version": 2,
    "executors": [{"tasks": ["train"], "executor": {"path": "my_trainer.Mine", "args": {}}}],
    "task_result_filters": [{"tasks": ["train"], "filters": [{"path": "my_trainer.Mine"}]}],
}


def app(folder: Path, server: dict[str, Any] | None = None, client: dict[str, Any] | None = None) -> Path:
    """An app folder with these configurations."""
    (folder / "config").mkdir(parents=True)
    (folder / "custom").mkdir()
    (folder / "config" / "config_fed_server.json").write_text(json.dumps(SERVER | (server or {})))
    (folder / "config" / "config_fed_client.json").write_text(json.dumps(CLIENT | (client or {})))
    return folder


def test_an_app_is_read_with_its_variables_and_without_what_is_disabled(tmp_path: Path) -> None:
    found = read(app(tmp_path / "hello"))
    flow = found.server.workflows[0]
    assert (found.name, [each.id for each in found.server.components]) == ("hello", ["aggregator"])
    assert flow.args == {"num_rounds": 4, "train_task_name": "{no_such}"}  # a text that is one variable keeps its type
    made = Builder(tmp_path / "hello" / "custom", 0).part(found.server.components[0])
    assert made.dxo_aggregators["_single_"].expected_data_kind == "WEIGHTS"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda s, c: s.update(format_version="2"), "config_fed_server.json: format_version"),
        (lambda s, c: s.update(workflows=[]), "config_fed_server.json: workflows"),
        (lambda s, c: s.update(components=[{"name": "X"}]), "config_fed_server.json: components[0]/id"),
        (lambda s, c: s.update(components=[{"id": "a", "name": "X"}] * 2), "config_fed_server.json: components"),
        (lambda s, c: s.update(components=[{"id": "a", "name": "X", "path": "y.X"}]), "config_fed_server.json: components[0]"),
        (lambda s, c: s.update(server={"task_request_interval": 0}), "config_fed_server.json: server/task_request_interval"),
        (lambda s, c: c.update(executors=[]), "config_fed_client.json: executors"),
        (lambda s, c: c.update(executors=c["executors"] * 2), "config_fed_client.json: executors, tasks"),
        (lambda s, c: c["executors"][0].update(tasks=[]), "config_fed_client.json: executors[0]/tasks"),
        (
            lambda s, c: c.update(task_data_filters=[{"tasks": ["t"], "filters": [3]}]),
            "config_fed_client.json: task_data_filters[0]/filters[0]",
        ),
    ],
)
def test_an_entry_that_is_wrong_is_named(tmp_path: Path, change: Callable[..., None], path: str) -> None:
    server, client = json.loads(json.dumps(SERVER)), json.loads(json.dumps(CLIENT))
    change(server, client)
    with pytest.raises(ConfigError) as caught:
        read(app(tmp_path / "a", server, client))
    assert caught.value.path == path


def test_a_folder_that_is_no_app_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config_fed_client\.json"):
        read(tmp_path)


def test_classes_are_found_by_name_and_objects_in_arguments_are_made(tmp_path: Path) -> None:
    from hansa.compat.flare.app import Part
    from hansa.compat.flare.mapping import mapped

    (tmp_path / "mine_too.py").write_text("class Inner:\n    def __init__(self, x): self.x = x\n\nclass Outer(Inner): pass\n")
    builder = Builder(tmp_path, 0)
    with mapped(tmp_path):
        made = builder.part(Part("", "Outer", {"x": [{"path": "mine_too.Inner", "args": {"x": 1}}, {"plain": 2}]}, "here"))
        assert (type(made).__name__, made.x[0].x, made.x[1]) == ("Outer", 1, {"plain": 2})
        for part, says in (
            (Part("", "ScaterAndGather", {}, "here"), "did you mean 'ScatterAndGather'"),
            (Part("mine_too.None_", "", {}, "here"), "has no 'None_'"),
            (Part("nvflare.no.such.Class", "", {}, "here"), "no module for 'nvflare.no.such.Class'"),
            (Part("mine_too.Inner", "", {"y": 1}, "here"), "Inner cannot be made: .*unexpected keyword argument 'y'"),
        ):
            with pytest.raises(ConfigError, match=says):
                builder.part(part)
