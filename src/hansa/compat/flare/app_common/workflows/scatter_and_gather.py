"""ScatterAndGather: the global model goes to all clients, what they made of it is aggregated, round after round."""

from __future__ import annotations

from typing import Any

from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.fl_constant import ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.impl.controller import ClientTask, Controller, Task
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.apis.signal import Signal
from hansa.compat.flare.app_common.abstract.aggregator import Aggregator
from hansa.compat.flare.app_common.abstract.learnable import Learnable
from hansa.compat.flare.app_common.abstract.learnable_persistor import LearnablePersistor
from hansa.compat.flare.app_common.abstract.shareable_generator import ShareableGenerator
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.app_event_type import AppEventType
from hansa.compat.flare.app_common.workflows.parts import aborted, natural, part


class ScatterAndGather(Controller):
    """Federated training in rounds.

    min_clients: how many must answer. wait_time_after_min_received: seconds for the others, once they have. train_timeout: seconds
    for a round, 0 for none. ignore_result_error: whether a result that says it is none is passed over, and not the run's end.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
    """

    def __init__(
        self,
        min_clients: int = 1,
        num_rounds: int = 5,
        start_round: int = 0,
        wait_time_after_min_received: int = 10,
        aggregator_id: str = AppConstants.DEFAULT_AGGREGATOR_ID,
        persistor_id: str = AppConstants.DEFAULT_PERSISTOR_ID,
        shareable_generator_id: str = AppConstants.DEFAULT_SHAREABLE_GENERATOR_ID,
        train_task_name: str = AppConstants.TASK_TRAIN,
        train_timeout: int = 0,
        ignore_result_error: bool = True,
        task_check_period: float = 0.5,
        persist_every_n_rounds: int = 1,
        snapshot_every_n_rounds: int = 1,
    ) -> None:
        super().__init__(task_check_period)
        natural(min_clients, "min_clients", least=1)
        natural(num_rounds, "num_rounds")
        natural(start_round, "start_round")
        natural(wait_time_after_min_received, "wait_time_after_min_received")
        natural(train_timeout, "train_timeout")
        natural(persist_every_n_rounds, "persist_every_n_rounds")
        natural(snapshot_every_n_rounds, "snapshot_every_n_rounds")
        self.aggregator_id, self.persistor_id, self.shareable_generator_id = aggregator_id, persistor_id, shareable_generator_id
        self.train_task_name = train_task_name
        self._min_clients, self._num_rounds, self._start_round = min_clients, num_rounds, start_round
        self._wait_time_after_min_received, self._train_timeout = wait_time_after_min_received, train_timeout
        self._ignore_result_error, self._persist_every = ignore_result_error, persist_every_n_rounds
        self._phase = AppConstants.PHASE_INIT
        self._current_round: int | None = None
        self._global_weights: Any = None
        self.aggregator: Any = None
        self.persistor: Any = None
        self.shareable_gen: Any = None

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Find the components and load the model.

        Raises:
            ValueError, TypeError: a component is missing or another; names its id.
        """
        self._phase = AppConstants.PHASE_INIT
        self.aggregator = part(fl_ctx, self.aggregator_id, Aggregator, "aggregator")
        self.shareable_gen = part(fl_ctx, self.shareable_generator_id, ShareableGenerator, "shareable generator")
        self.persistor = part(fl_ctx, self.persistor_id, LearnablePersistor, "persistor") if self.persistor_id else None
        fl_ctx.set_prop(AppConstants.START_ROUND, self._start_round, private=True, sticky=True)
        fl_ctx.set_prop(AppConstants.NUM_ROUNDS, self._num_rounds, private=True, sticky=True)
        found = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
        self._global_weights = self.persistor.load(fl_ctx) if self.persistor is not None else found
        if not isinstance(self._global_weights, Learnable):
            got = type(self._global_weights)
            raise TypeError(f"the persistor {self.persistor_id!r} must load a Learnable, but it gave {got}")
        if self._global_weights.is_empty() and isinstance(found, Learnable):
            self._global_weights = found  # as InitializeGlobalWeights left it
        self._keep_model(fl_ctx)
        self.fire_event(AppEventType.INITIAL_MODEL_LOADED, fl_ctx)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Train for the rounds."""
        self._phase = AppConstants.PHASE_TRAIN
        fl_ctx.put(AppConstants.PHASE, self._phase)
        self.fire_event(AppEventType.TRAINING_STARTED, fl_ctx)
        for number in range(self._start_round, self._start_round + self._num_rounds):
            if aborted(abort_signal):
                return
            self._current_round = number
            fl_ctx.put(AppConstants.CURRENT_ROUND, number)
            self.fire_event(AppEventType.ROUND_STARTED, fl_ctx)
            self._gather(abort_signal, fl_ctx)
            if aborted(abort_signal):
                return
            self._aggregate(fl_ctx)
            if self.persistor is not None and self._persist_every and (number + 1 - self._start_round) % self._persist_every == 0:
                self._persist(fl_ctx)
            self.fire_event(AppEventType.ROUND_DONE, fl_ctx)
        self._phase = AppConstants.PHASE_FINISHED

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """The training is over."""
        del fl_ctx
        self._phase = AppConstants.PHASE_FINISHED

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """Offer a late result to the aggregator, which takes it in if it is of this round."""
        del client_task_id
        if self._phase == AppConstants.PHASE_TRAIN and task_name == self.train_task_name:
            self._accept(client.name, result, fl_ctx)
        else:
            self.log_info(fl_ctx, f"result of {client.name!r} for task {task_name!r} ignored: no such task stands")

    def task_data(self, fl_ctx: FLContext) -> Shareable:
        """What the clients of a round are sent."""
        return self.with_round(self.shareable_gen.learnable_to_shareable(self._global_weights, fl_ctx))

    def with_round(self, data: Shareable) -> Shareable:
        """The data, with what says of which round they are."""
        data.set_header(AppConstants.CURRENT_ROUND, self._current_round)
        data.set_header(AppConstants.NUM_ROUNDS, self._num_rounds)
        data.add_cookie(AppConstants.CONTRIBUTION_ROUND, self._current_round)
        return data

    def update(self, aggregated: Shareable, fl_ctx: FLContext) -> None:
        """Make the next global model of what was aggregated."""
        self._global_weights = self.shareable_gen.shareable_to_learnable(aggregated, fl_ctx)

    def _gather(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        task = Task(
            self.train_task_name,
            self.task_data(fl_ctx),
            {},
            self._train_timeout,
            before_task_sent_cb=self._prepare,
            result_received_cb=self._process,
        )
        self.broadcast_and_wait(
            task,
            fl_ctx,
            min_responses=self._min_clients,
            wait_time_after_min_received=self._wait_time_after_min_received,
            abort_signal=abort_signal,
        )

    def _aggregate(self, fl_ctx: FLContext) -> None:
        self.fire_event(AppEventType.BEFORE_AGGREGATION, fl_ctx)
        aggregated: Shareable = self.aggregator.aggregate(fl_ctx)
        fl_ctx.put(AppConstants.AGGREGATION_RESULT, aggregated)
        self.fire_event(AppEventType.AFTER_AGGREGATION, fl_ctx)
        self.fire_event(AppEventType.BEFORE_SHAREABLE_TO_LEARNABLE, fl_ctx)
        self.update(aggregated, fl_ctx)
        self._keep_model(fl_ctx)
        self.fire_event(AppEventType.AFTER_SHAREABLE_TO_LEARNABLE, fl_ctx)

    def _persist(self, fl_ctx: FLContext) -> None:
        self.fire_event(AppEventType.BEFORE_LEARNABLE_PERSIST, fl_ctx)
        self.persistor.save(self._global_weights, fl_ctx)
        self.fire_event(AppEventType.AFTER_LEARNABLE_PERSIST, fl_ctx)

    def _keep_model(self, fl_ctx: FLContext) -> None:
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, self._global_weights, private=True, sticky=True)
        fl_ctx.sync_sticky()

    def _prepare(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        fl_ctx.put(AppConstants.CURRENT_ROUND, self._current_round)
        fl_ctx.put(AppConstants.TRAIN_SHAREABLE, client_task.task.data)
        self.fire_event(AppEventType.BEFORE_TRAIN_TASK, fl_ctx)

    def _process(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        self._accept(client_task.client.name, client_task.result, fl_ctx)
        client_task.result = None  # the aggregator has it

    def _accept(self, client: str, result: Shareable, fl_ctx: FLContext) -> None:
        code = result.get_return_code(ReturnCode.OK)
        if code != ReturnCode.OK:
            if not self._ignore_result_error:
                self.system_panic(f"result of {client!r} in round {self._current_round}: {code}", fl_ctx)
            else:
                self.log_error(fl_ctx, f"result of {client!r} in round {self._current_round} ignored: {code}")
            return
        result.set_header(AppConstants.CONTRIBUTION_ROUND, result.get_cookie(AppConstants.CONTRIBUTION_ROUND))
        for key, value in (
            (AppConstants.CURRENT_ROUND, self._current_round),
            (AppConstants.TRAINING_RESULT, result),
            (AppConstants.CONTRIBUTION_CLIENT, client),
        ):
            fl_ctx.put(key, value)
        self.fire_event(AppEventType.BEFORE_CONTRIBUTION_ACCEPT, fl_ctx)
        accepted = self.aggregator.accept(result, fl_ctx)
        fl_ctx.put(AppConstants.AGGREGATION_ACCEPTED, accepted)
        self.fire_event(AppEventType.AFTER_CONTRIBUTION_ACCEPT, fl_ctx)
