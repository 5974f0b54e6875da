"""CyclicController: one model goes from client to client, round after round."""

from __future__ import annotations

from typing import Any

from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.fl_constant import ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.impl.controller import ClientTask, Controller, Task
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.apis.signal import Signal
from hansa.compat.flare.app_common.abstract.learnable_persistor import LearnablePersistor
from hansa.compat.flare.app_common.abstract.shareable_generator import ShareableGenerator
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.app_event_type import AppEventType
from hansa.compat.flare.app_common.workflows.parts import aborted, natural, part


class CyclicController(Controller):
    """Each client trains from where the last one stopped. `task_assignment_timeout`: seconds that a client has to take its turn.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
    """

    def __init__(
        self,
        num_rounds: int = 5,
        task_assignment_timeout: int = 10,
        persistor_id: str = AppConstants.DEFAULT_PERSISTOR_ID,
        shareable_generator_id: str = AppConstants.DEFAULT_SHAREABLE_GENERATOR_ID,
        task_name: str = AppConstants.TASK_TRAIN,
        task_check_period: float = 0.5,
    ) -> None:
        super().__init__(task_check_period)
        natural(num_rounds, "num_rounds")
        natural(task_assignment_timeout, "task_assignment_timeout")
        self._num_rounds, self._assignment_timeout = num_rounds, task_assignment_timeout
        self.persistor_id, self.shareable_generator_id, self.task_name = persistor_id, shareable_generator_id, task_name
        self._learnable: Any = None
        self._current_round: int | None = None
        self.persistor: Any = None
        self.shareable_generator: Any = None

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Find the components and load the model."""
        self.persistor = part(fl_ctx, self.persistor_id, LearnablePersistor, "persistor")
        self.shareable_generator = part(fl_ctx, self.shareable_generator_id, ShareableGenerator, "shareable generator")
        self._keep(self.persistor.load(fl_ctx), fl_ctx)
        self.fire_event(AppEventType.INITIAL_MODEL_LOADED, fl_ctx)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Send the model around."""
        clients = self._engine.get_clients()
        if len(clients) < 2:
            self.system_panic(f"a cycle needs two clients, and there are {len(clients)}", fl_ctx)
            return
        for number in range(self._num_rounds):
            if aborted(abort_signal):
                return
            self._current_round = number
            fl_ctx.put(AppConstants.CURRENT_ROUND, number)
            self.fire_event(AppEventType.ROUND_STARTED, fl_ctx)
            task = Task(self.task_name, self._data(fl_ctx), before_task_sent_cb=self._next, result_received_cb=self._received)
            self.relay_and_wait(
                task,
                fl_ctx,
                targets=clients,
                task_assignment_timeout=self._assignment_timeout,
                dynamic_targets=False,
                abort_signal=abort_signal,
            )
            if aborted(abort_signal):
                return
            fl_ctx.sync_sticky()
            self.fire_event(AppEventType.BEFORE_LEARNABLE_PERSIST, fl_ctx)
            self.persistor.save(self._learnable, fl_ctx)
            self.fire_event(AppEventType.AFTER_LEARNABLE_PERSIST, fl_ctx)
            self.fire_event(AppEventType.ROUND_DONE, fl_ctx)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing is held."""

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """A client whose turn was over: the model has gone on."""
        del client_task_id, result
        self.log_warning(fl_ctx, f"result of {client.name!r} for task {task_name!r} ignored: its turn was over")

    def _data(self, fl_ctx: FLContext) -> Shareable:
        data: Shareable = self.shareable_generator.learnable_to_shareable(self._learnable, fl_ctx)
        data.set_header(AppConstants.NUM_ROUNDS, self._num_rounds)
        data.set_header(AppConstants.CURRENT_ROUND, self._current_round)
        data.add_cookie(AppConstants.CONTRIBUTION_ROUND, self._current_round)
        return data

    def _next(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        """The model as the last client left it."""
        client_task.task.data = self._data(fl_ctx)

    def _received(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        result, client = client_task.result, client_task.client.name
        code = result.get_return_code()
        if code != ReturnCode.OK:
            self.log_error(fl_ctx, f"{client!r} is passed over in round {self._current_round}: {code}")
            return
        fl_ctx.put(AppConstants.CURRENT_ROUND, self._current_round)
        self._keep(self.shareable_generator.shareable_to_learnable(result, fl_ctx), fl_ctx)
        fl_ctx.put(AppConstants.TRAINING_RESULT, result)
        fl_ctx.put(AppConstants.AGGREGATION_ACCEPTED, True)
        self.fire_event(AppEventType.AFTER_CONTRIBUTION_ACCEPT, fl_ctx)

    def _keep(self, learnable: Any, fl_ctx: FLContext) -> None:
        self._learnable = learnable
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, learnable, private=True, sticky=True)
        fl_ctx.sync_sticky()
