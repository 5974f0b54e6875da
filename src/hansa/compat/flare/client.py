"""The Client API of later FLARE, for a training script: `import nvflare.client as flare`. It is spelling over `hansa.client`.

Such a script is named in a job as any is: `ScriptLearner("train.py", ...)`. `params` are torch tensors where the script has
imported torch, and NumPy arrays otherwise.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from hansa import client
from hansa.compat.flare.app_common.abstract.fl_model import FLModel, ParamsType
from hansa.errors import InputError

__all__ = [
    "FLModel",
    "ParamsType",
    "clear",
    "get_config",
    "get_job_id",
    "get_site_name",
    "get_task_name",
    "init",
    "is_evaluate",
    "is_running",
    "is_submit_model",
    "is_train",
    "log",
    "receive",
    "send",
    "shutdown",
    "system_info",
]
STEPS = "NUM_STEPS_CURRENT_ROUND"


@dataclass
class _Held:
    """The task of this script. `fresh`: it was asked for, and not received yet."""

    task: client.Task | None = None
    fresh: bool = False
    site: str = ""
    job: str = ""


_held = _Held()


def init(rank: str | int | None = None, config_file: str | None = None) -> None:
    """Nothing has to be prepared; who calls it outside a federation is told so.

    Raises:
        InputError: the script runs by itself.
    """
    del rank, config_file
    if not client.federated():
        hint = 'name it in a job, ScriptLearner("train.py", ...), and type: hansa run job.py:job'
        raise InputError("this script runs by itself, so no tasks come", path=sys.argv[0] or None, hint=hint)


def is_running() -> bool:
    """Whether there is a task to do: waits for the next one."""
    if _held.task is None:
        _held.task = client.receive()
        _held.fresh = _held.task is not None
        if _held.task is not None:
            _held.site, _held.job = _held.task.site, _held.task.run
    return _held.task is not None


def receive(timeout: float | None = None) -> FLModel | None:
    """The model to go on with; None when the run has ended.

    Raises:
        InputError: the model that was received before was not answered by `send`.
    """
    del timeout
    if _held.task is not None and not _held.fresh:
        raise InputError(
            "the last model was not answered", task=_held.task.name, hint="flare.send(...) once for each flare.receive()"
        )
    if not is_running() or _held.task is None:
        return None
    task, _held.fresh = _held.task, False
    torch_is_here = "torch" in sys.modules
    params = task.state_dict() if torch_is_here else task.params
    total = task.config.get("rounds")
    return FLModel(ParamsType.FULL, params, current_round=task.round - 1, total_rounds=total, meta={"site_name": task.site})


def send(model: FLModel, clear_cache: bool = True) -> None:
    """Answer with parameters and metrics; `meta["NUM_STEPS_CURRENT_ROUND"]` is their weight among the sites.

    Raises:
        InputError: there is no task, or it asks for something else. SpecError: the parameters do not fit; names the first.
    """
    del clear_cache
    task, _held.task = _held.task, None
    metrics = {name: value for name, value in (model.metrics or {}).items() if isinstance(value, int | float)}
    steps = model.meta.get(STEPS)
    if task is not None and task.name == "evaluate":
        client.send(None, metrics, examples=steps)
    else:
        client.send(model.params, metrics, examples=steps, kind="delta" if model.params_type == ParamsType.DIFF else "weights")


def is_train() -> bool:
    """Whether the present task is a training."""
    return get_task_name() == "train"


def is_evaluate() -> bool:
    """Whether the present task asks for metrics alone."""
    return get_task_name() == "evaluate"


def is_submit_model() -> bool:
    """Never: a job here keeps models by itself."""
    return False


def get_task_name() -> str:
    """The present task's name; empty where there is none."""
    return _held.task.name if _held.task is not None else ""


def get_site_name() -> str:
    """The site at which the script runs."""
    is_running()
    return _held.site


def get_job_id() -> str:
    """The run's name."""
    is_running()
    return _held.job


def get_config() -> dict[str, Any]:
    """What the job and the algorithm ask for."""
    is_running()
    return dict(_held.task.config) if _held.task is not None else {}


def system_info() -> dict[str, str]:
    """Where the script runs."""
    return {"site_name": get_site_name(), "job_id": get_job_id()}


def log(key: str, value: Any, data_type: Any = None, global_step: int | None = None, **kwargs: Any) -> None:
    """Tell a number while training goes on."""
    del data_type, kwargs
    client.track(global_step, **{key: value})


def clear() -> None:
    """Nothing is kept between tasks."""


def shutdown() -> None:
    """The script is at its end."""
