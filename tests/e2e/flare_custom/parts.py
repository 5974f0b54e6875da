"""Components of apps in the style of FLARE 2.0, that tests put together."""

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.impl.controller import Controller, Task
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.abstract.response_processor import ResponseProcessor
from nvflare.app_common.widgets.streaming import AnalyticsReceiver


class DiffTrainer(Executor):
    """Sends the change; the site's number says how large it is."""

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        if task_name == "get_weights":
            return DXO(DataKind.WEIGHTS, {"w": np.full(2, 10.0)}).to_shareable()
        dxo = from_shareable(shareable)
        delta = float(fl_ctx.get_identity_name()[-1])
        assert fl_ctx.get_peer_context().get_identity_name() == "server"
        fl_ctx.set_prop("mood", "good", private=False, sticky=True)
        return DXO(DataKind.WEIGHT_DIFF, {name: np.full_like(value, delta) for name, value in dxo.data.items()}).to_shareable()


class Troubled(Executor):
    """Each site has a trouble of its own; site-4 has none."""

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        site = fl_ctx.get_identity_name()
        if site == "site-1":
            raise ValueError("disk full")
        if site == "site-2":
            return make_reply(ReturnCode.BAD_TASK_DATA)
        if site == "site-3":
            return {"not": "a shareable"}
        if site == "site-5":
            raise RuntimeError("no GPU")
        if site == "site-6":
            return DXO(DataKind.WEIGHTS, {"f": len}).to_shareable()
        dxo = from_shareable(shareable)
        return DXO(DataKind.WEIGHTS, {name: value + 1 for name, value in dxo.data.items()}).to_shareable()


class Asks(Executor):
    """Would have a word with the server beside its task."""

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        return fl_ctx.get_engine().send_aux_request(topic="mood", request=Shareable(), timeout=1.0, fl_ctx=fl_ctx)


class Panics(Executor):
    """Says that the run cannot go on."""

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        self.system_panic("the data are gone", fl_ctx)
        return make_reply(ReturnCode.EXECUTION_EXCEPTION)


class Times(DXOFilter):
    """Multiplies, and then adds: the order of filters shows."""

    def __init__(self, by=1.0, plus=0.0):
        super().__init__()
        self.by, self.plus = by, plus

    def process_dxo(self, dxo, shareable, fl_ctx):
        return DXO(dxo.data_kind, {name: value * self.by + self.plus for name, value in dxo.data.items()}, dxo.meta)


class Statistics(ResponseProcessor):
    """Sums what sites count."""

    def create_task_data(self, task_name, fl_ctx):
        self.total = 0
        return Shareable()

    def process_client_response(self, client, task_name, response, fl_ctx):
        self.total += from_shareable(response).data["rows"]
        return True

    def final_process(self, fl_ctx):
        self.log_info(fl_ctx, f"rows: {self.total}")
        fl_ctx.set_prop("rows", self.total)
        return self.total > 0


class Counts(Executor):
    """Says how many rows it has."""

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        return DXO(DataKind.METRICS, {"rows": 10 * int(fl_ctx.get_identity_name()[-1])}).to_shareable()


class Streams(Executor):
    """Tells its loss twice."""

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        sender = fl_ctx.get_engine().get_component("sender")
        for step in (1, 2):
            sender.add_scalar("loss", 1.0 / step, step)
        return Shareable()


class Listens(AnalyticsReceiver):
    """Writes what comes into a file of the run's folder."""

    def initialize(self, fl_ctx):
        self.lines = []

    def save(self, fl_ctx, shareable, record_origin):
        data = from_shareable(shareable).data
        self.lines.append(f"{record_origin} {data['track_key']} {data['track_value']} {data['kwargs']['global_step']}")

    def finalize(self, fl_ctx):
        import os

        with open(os.path.join(fl_ctx.get_prop(FLContextKey.APP_ROOT), "heard.txt"), "w") as file:
            file.write("\n".join(sorted(self.lines)))


class Diary(FLComponent):
    """Writes down which events its place has heard."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def handle_event(self, event_type, fl_ctx):
        import os

        self.lines.append(event_type)
        if event_type == EventType.END_RUN:
            with open(os.path.join(fl_ctx.get_prop(FLContextKey.APP_ROOT), "diary.txt"), "w") as file:
                file.write("\n".join(self.lines))


class Once(Controller):
    """Asks all for something, in the way of loops that look whether tasks still stand."""

    def __init__(self, task_name="count", wait=True):
        super().__init__()
        self.task_name, self.wait = task_name, wait

    def start_controller(self, fl_ctx):
        pass

    def stop_controller(self, fl_ctx):
        pass

    def control_flow(self, abort_signal, fl_ctx):
        self.broadcast(Task(self.task_name, Shareable()), fl_ctx, min_responses=2)
        if not self.wait:
            self.broadcast_and_wait(Task("other", Shareable()), fl_ctx, targets=["nobody"], abort_signal=abort_signal)
        while self.get_num_standing_tasks():
            if abort_signal.triggered:
                return

    def process_result_of_unknown_task(self, client, task_name, client_task_id, result, fl_ctx):
        pass
