"""App folders in the style of FLARE 2.0, put together by tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

APPS = Path(__file__).parents[2] / "examples" / "flare"
CUSTOM = Path(__file__).parent / "flare_custom"
GOLDEN = [[4, 5, 6], [7, 8, 9], [10, 11, 12]]
PARTS: list[dict[str, Any]] = [
    {"id": "persistor", "name": "NPModelPersistor"},
    {"id": "shareable_generator", "name": "FullModelShareableGenerator"},
    {"id": "aggregator", "name": "InTimeAccumulateWeightedAggregator", "args": {"expected_data_kind": "{KIND}"}},
    {"id": "diary", "path": "parts.Diary"},
]


def flow(name: str, **args: Any) -> dict[str, Any]:
    return {"id": name.rpartition(".")[2], "path" if "." in name else "name": name, "args": args}


def sag(rounds: int = 3, **args: Any) -> dict[str, Any]:
    return flow("ScatterAndGather", num_rounds=rounds, min_clients=2, **args)


def app(folder: Path, executor: str, flows: list[dict[str, Any]], *, server: dict[str, Any] | None = None, **client: Any) -> Path:
    """An app folder: components for a model of one array, these workflows, and one executor for all tasks."""
    (folder / "config").mkdir(parents=True)
    shutil.copytree(CUSTOM, folder / "custom", ignore=shutil.ignore_patterns("__pycache__"))
    own = {"format_version": 2, "KIND": "WEIGHTS", "components": PARTS, "workflows": flows, **(server or {})}
    (folder / "config" / "config_fed_server.json").write_text(json.dumps(own))
    place = {"path" if "." in executor else "name": executor, "args": client.pop("args", {})}
    theirs = {"format_version": 2, "executors": [{"tasks": ["*"], "executor": place}], **client}
    (folder / "config" / "config_fed_client.json").write_text(json.dumps(theirs))
    return folder


def validated(folder: Path, *, sleep_s: float = 0.0) -> Path:
    """An app that trains for three rounds, and then has all models validated everywhere."""
    made = app(folder, "NPTrainer", [sag(), flow("CrossSiteModelEval", model_locator_id="locator", formatter_id="formatter")])
    server, client = made / "config" / "config_fed_server.json", made / "config" / "config_fed_client.json"
    content = json.loads(server.read_text())
    content["components"] += [
        {"id": "locator", "name": "NPModelLocator"},
        {"id": "formatter", "name": "NPFormatter"},
        {"id": "json", "name": "ValidationJsonGenerator"},
    ]
    server.write_text(json.dumps(content))
    content = json.loads(client.read_text())
    content["executors"] = [
        {"tasks": ["train", "submit_model"], "executor": {"name": "NPTrainer", "args": {"sleep_time": sleep_s}}},
        {"tasks": ["validate"], "executor": {"name": "NPValidator"}},
    ]
    client.write_text(json.dumps(content))
    return made
