"""CrossSiteModelEval: each client's model and the server's, validated at each client."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.dxo import DXO, DataKind, from_bytes, from_shareable
from hansa.compat.flare.apis.fl_constant import ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.impl.controller import ClientTask, Controller, Task
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.apis.signal import Signal
from hansa.compat.flare.app_common.abstract.formatter import Formatter
from hansa.compat.flare.app_common.abstract.model_locator import ModelLocator
from hansa.compat.flare.app_common.app_constant import AppConstants, ModelName, ValidateType
from hansa.compat.flare.app_common.app_event_type import AppEventType
from hansa.compat.flare.app_common.workflows.parts import aborted, natural, part


class CrossSiteModelEval(Controller):
    """Asks clients for their best models, and all of them to validate all models.

    The models stand in `cross_val_dir`/model_shareables of the run's folder, the results in result_shareables, in our codec's
    bytes. A model that was not given, or a result that did not come in time, is missing by name in the log.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
    """

    def __init__(
        self,
        task_check_period: float = 0.5,
        cross_val_dir: str = AppConstants.CROSS_VAL_DIR,
        submit_model_timeout: int = 600,
        validation_timeout: int = 6000,
        model_locator_id: str = "",
        formatter_id: str = "",
        submit_model_task_name: str = AppConstants.TASK_SUBMIT_MODEL,
        validation_task_name: str = AppConstants.TASK_VALIDATION,
        cleanup_models: bool = False,
        participating_clients: list[str] | None = None,
        wait_for_clients_timeout: int = 300,
    ) -> None:
        super().__init__(task_check_period)
        natural(submit_model_timeout, "submit_model_timeout")
        natural(validation_timeout, "validation_timeout")
        natural(wait_for_clients_timeout, "wait_for_clients_timeout")
        self._cross_val_dir, self._cleanup_models = cross_val_dir, cleanup_models
        self._submit_timeout, self._validation_timeout = submit_model_timeout, validation_timeout
        self._locator_id, self._formatter_id = model_locator_id, formatter_id
        self._submit_task, self._validation_task = submit_model_task_name, validation_task_name
        self._named = participating_clients
        self._models: list[str] = []
        self._results: dict[str, dict[str, str]] = {}  # data client -> model owner -> file
        self._folder = Path()

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Make the folders anew."""
        self._folder = Path(self._engine.get_workspace().get_run_dir(fl_ctx.get_run_number()), self._cross_val_dir)
        shutil.rmtree(self._folder, ignore_errors=True)
        for name in (AppConstants.CROSS_VAL_MODEL_DIR_NAME, AppConstants.CROSS_VAL_RESULTS_DIR_NAME):
            (self._folder / name).mkdir(parents=True)
        fl_ctx.put(AppConstants.CROSS_VAL_MODEL_PATH, str(self._folder / AppConstants.CROSS_VAL_MODEL_DIR_NAME))
        fl_ctx.put(AppConstants.CROSS_VAL_RESULTS_PATH, str(self._folder / AppConstants.CROSS_VAL_RESULTS_DIR_NAME))
        self.fire_event(AppEventType.CROSS_VAL_INIT, fl_ctx)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Gather the models, then have each validated by all."""
        clients = self._clients()
        if not clients:
            self.system_panic("there are no clients that could validate", fl_ctx)
            return
        if self._submit_task:
            self._gather(clients, abort_signal, fl_ctx)
        self._locate(fl_ctx)
        for owner in self._models:
            if aborted(abort_signal):
                return
            self._validate(owner, clients, fl_ctx)
        while self.get_num_standing_tasks():
            if aborted(abort_signal):
                self.cancel_all_tasks()
                return
        if self._formatter_id:
            fl_ctx.put(AppConstants.VALIDATION_RESULT, self._results)
            formatter = part(fl_ctx, self._formatter_id, Formatter, "formatter")
            self.log_info(fl_ctx, f"validation results:\n{formatter.format(fl_ctx)}")

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Remove the models, where that was asked for."""
        del fl_ctx
        if self._cleanup_models:
            shutil.rmtree(self._folder / AppConstants.CROSS_VAL_MODEL_DIR_NAME, ignore_errors=True)

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """What came too late is said in the log, and left out."""
        del client_task_id, result
        self.log_error(fl_ctx, f"result of {client.name!r} for task {task_name!r} came too late")

    def _clients(self) -> list[str]:
        """Those that are named and there, in their order; all without names."""
        there = [each.name for each in self._engine.get_clients()]
        return there if self._named is None else [name for name in self._named if name in there]

    def _gather(self, clients: list[str], abort_signal: Signal, fl_ctx: FLContext) -> None:
        data = Shareable()
        data.set_header(AppConstants.SUBMIT_MODEL_NAME, ModelName.BEST_MODEL)
        task = Task(self._submit_task, data, timeout=self._submit_timeout, result_received_cb=self._submitted)
        self.broadcast_and_wait(task, fl_ctx, clients, min_responses=len(clients), abort_signal=abort_signal)

    def _locate(self, fl_ctx: FLContext) -> None:
        """Keep the server's models, as `SRV_` and their names."""
        if not self._locator_id:
            return
        locator = part(fl_ctx, self._locator_id, ModelLocator, "model locator")
        for name in locator.get_model_names(fl_ctx):
            found: object = locator.locate_model(name, fl_ctx)
            if isinstance(found, DXO):
                self._keep_model(f"SRV_{name}", found)
            else:
                self.log_error(fl_ctx, f"the server's model {name!r} is not there")

    def _validate(self, owner: str, clients: Sequence[str], fl_ctx: FLContext) -> None:
        """Ask for a validation of one model; several are under way together."""
        data = from_bytes(self._model_file(owner).read_bytes()).to_shareable()
        data.set_header(AppConstants.MODEL_OWNER, owner)
        data.set_header(AppConstants.VALIDATE_TYPE, ValidateType.MODEL_VALIDATE)
        data.add_cookie(AppConstants.MODEL_OWNER, owner)
        props = {AppConstants.MODEL_OWNER: owner}
        task = Task(
            self._validation_task,
            data,
            props,
            self._validation_timeout,
            before_task_sent_cb=self._before,
            result_received_cb=self._validated,
        )
        self.broadcast(task, fl_ctx, list(clients), min_responses=len(clients))

    def _before(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        fl_ctx.put(AppConstants.DATA_CLIENT, client_task.client)
        fl_ctx.put(AppConstants.MODEL_OWNER, client_task.task.get_prop(AppConstants.MODEL_OWNER))
        fl_ctx.put(AppConstants.MODEL_TO_VALIDATE, client_task.task.data)
        self.fire_event(AppEventType.SEND_MODEL_FOR_VALIDATION, fl_ctx)

    def _submitted(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        owner, result = client_task.client.name, client_task.result
        dxo = self._dxo(result, (DataKind.WEIGHTS, DataKind.COLLECTION), f"model of {owner!r}", fl_ctx)
        if dxo is not None:
            self._keep_model(owner, dxo)
            fl_ctx.put(AppConstants.RECEIVED_MODEL, result)
            fl_ctx.put(AppConstants.RECEIVED_MODEL_OWNER, owner)
            self.fire_event(AppEventType.RECEIVE_BEST_MODEL, fl_ctx)

    def _validated(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        site, result = client_task.client.name, client_task.result
        owner = str(client_task.task.get_prop(AppConstants.MODEL_OWNER))
        for key, value in (
            (AppConstants.MODEL_OWNER, owner),
            (AppConstants.DATA_CLIENT, site),
            (AppConstants.VALIDATION_RESULT, result),
        ):
            fl_ctx.put(key, value)
        self.fire_event(AppEventType.VALIDATION_RESULT_RECEIVED, fl_ctx)
        dxo = self._dxo(result, (DataKind.METRICS,), f"validation of {owner!r} at {site!r}", fl_ctx)
        if dxo is not None:
            file = self._folder / AppConstants.CROSS_VAL_RESULTS_DIR_NAME / _file(f"{site}__{owner}")
            file.write_bytes(dxo.to_bytes())
            self._results.setdefault(site, {})[owner] = str(file)

    def _dxo(self, result: Any, kinds: Sequence[str], what: str, fl_ctx: FLContext) -> DXO | None:
        """The DXO of a result; None, with a line in the log, where it is none of these kinds."""
        code = result.get_return_code()
        if code != ReturnCode.OK:
            self.log_error(fl_ctx, f"{what} is missing: {code}")
            return None
        try:
            dxo = from_shareable(result)
        except ValueError as error:
            self.log_error(fl_ctx, f"{what} is missing: {error}")
            return None
        if dxo.data_kind not in kinds:
            self.log_error(fl_ctx, f"{what} is missing: expected {' or '.join(kinds)}, but got {dxo.data_kind}")
            return None
        return dxo

    def _keep_model(self, owner: str, dxo: DXO) -> None:
        self._model_file(owner).write_bytes(dxo.to_bytes())
        self._models.append(owner)

    def _model_file(self, owner: str) -> Path:
        return self._folder / AppConstants.CROSS_VAL_MODEL_DIR_NAME / _file(owner)


def _file(name: str) -> str:
    """A file's name of a model's or a client's name, which never leads elsewhere."""
    return name.replace("/", "_").lstrip(".") or "_"
