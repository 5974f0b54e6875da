"""The app at the server: a workflow of ours that runs the app's, one after the other, over an exchange with the sites."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from hansa.compat.flare import wire
from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.fl_constant import EventScope, FedEventHeader, FLContextKey, ReservedTopic, ReturnCode
from hansa.compat.flare.apis.impl.controller import Controller
from hansa.compat.flare.apis.server_engine_spec import ServerEngineSpec
from hansa.compat.flare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from hansa.compat.flare.app import App
from hansa.compat.flare.mapping import mapped
from hansa.compat.flare.place import SERVER, Place, logged, peer_context
from hansa.compat.flare.results import Results
from hansa.compat.flare.seeds import seed_all
from hansa.compat.flare.site import TASK_ID
from hansa.core.protocols import Arrived, Exchange, Exchanging, Federation
from hansa.core.rng import generator
from hansa.core.task import Failure, Reply, Task
from hansa.errors import ConfigError, RunError, SpecError

_LOG: Final = logging.getLogger("hansa.flare")
_CODES: Final = {"lost": ReturnCode.COMMUNICATION_ERROR, "refused": ReturnCode.TASK_UNSUPPORTED}


class AppWorkflow:
    """The workflows of an app. Its result is what the app's global model is in the end, and what it wrote as JSON.

    workspace: where the server has its folder (None: one that is gone when the workflow returns).
    """

    def __init__(self, app: App, workspace: Path | None = None) -> None:
        self._app, self._workspace = app, workspace

    @property
    def about(self) -> str:
        """What runs where, in one line."""
        return self._app.about

    @property
    def rounds(self) -> int:
        """How many rounds the app's configuration names; 0 where it does not say."""
        told = [each.args.get("num_rounds", 0) for each in self._app.server.workflows]
        return sum(number for number in told if isinstance(number, int))

    def __call__(self, federation: Federation) -> Any:
        """Run the app's workflows.

        Raises:
            RunError: a component asked for the end, or nothing can happen any more. ConfigError: a part cannot be made.
        """
        if not isinstance(federation, Exchanging):
            raise RunError("this federation has no exchange, which FLARE's tasks need", got=type(federation).__name__)
        with ExitStack() as held:
            held.enter_context(mapped(self._app.folder / "custom"))
            seed = seed_all(generator(federation.seed, purpose="flare/server"))
            if self._workspace is not None:
                held.enter_context(logged(self._workspace / "log.txt"))
            root = self._workspace or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="flare-")))
            return Server(self._app, federation, federation.exchange(), root / SERVER, seed).run()


class Server(Place, ServerEngineSpec):
    """The server of a run."""

    def __init__(self, app: App, federation: Federation, exchange: Exchange, root: Path, seed: int) -> None:
        super().__init__(app, app.server, SERVER, root, seed)
        self._exchange = exchange
        self._slots = {name: slot for slot, name in enumerate(federation.sites)}
        self._clients = {name: Client(name, f"token-{slot}") for name, slot in self._slots.items()}
        self._idle = list(self._clients)  # whoever was free first asks first
        self._out: dict[int, tuple[str, str, str, str]] = {}  # request -> client, task, id, workflow
        self._begun: set[str] = set()
        self._gone: dict[str, str] = {}
        self._stopped = ""
        self._copies = wire.Copies()
        self._heard: dict[str, int] = {}  # client -> how many of the pending events it was sent
        self._flow: Controller | None = None
        self._flow_id = ""
        self.results = Results(federation)
        self.workflows: list[tuple[str, Controller]] = []
        for each in app.server.workflows:
            made = self.builder.part(each)
            if not isinstance(made, Controller):
                raise ConfigError("not a controller", path=each.where, got=type(made).__name__)
            self.workflows.append((each.id, made))
            self.components[each.id] = made

    def run(self) -> Any:
        """Run the workflows, one after the other; what came of them."""
        self.tell(EventType.ABOUT_TO_START_RUN)
        self.tell(EventType.START_RUN)
        for name, flow in self.workflows:
            self._flow, self._flow_id = flow, name
            self._run_flow(name, flow)
            if self._stopped:
                break
        self._flow = None
        self._end_sites()
        self.tell(EventType.ABOUT_TO_END_RUN)
        self.tell(EventType.END_RUN)
        if self._stopped:
            raise RunError(f"the app ended the run: {self._stopped}")
        with self.new_context() as fl_ctx:
            return self.results.end(fl_ctx)

    def now(self) -> float:
        """Seconds, on the exchange's clock."""
        return self._exchange.now()

    time = now

    def get_clients(self) -> list[Client]:
        return [each for name, each in self._clients.items() if name not in self._gone]

    def validate_clients(self, client_names: list[str]) -> tuple[list[Client], list[str]]:
        known = {each.name: each for each in self.get_clients()}
        return [known[name] for name in client_names if name in known], [name for name in client_names if name not in known]

    def ask_to_stop(self, reason: str = "a component asked for it") -> None:
        self._stopped = self._stopped or reason
        self.abort_signal.trigger(reason)

    def panic(self, reason: str) -> None:
        """A component here cannot go on: the run ends."""
        self.ask_to_stop(reason)

    def fire_event(self, event_type: str, fl_ctx: Any) -> None:
        local = fl_ctx.get_prop(FLContextKey.EVENT_SCOPE, EventScope.LOCAL) == EventScope.LOCAL
        super().fire_event(event_type, fl_ctx)
        if local:  # what a site tells is no word on the run's rounds and models
            self.results.heard(event_type, fl_ctx)

    def advance(self, least: float | None = None) -> bool:
        """Let the run go on by one thing, tasks that end or else the next result or time; whether there was one.

        least: for how long, at most, something is waited for where nothing is due.

        Raises:
            RunError: the run is to end, or nothing can happen any more.
        """
        flow = cast(Controller, self._flow)
        if flow.check_tasks():
            return True
        if self._stopped:
            raise RunError(f"the app ended the run: {self._stopped}")
        self._hand_out(flow)
        if flow.check_tasks():  # a callback may have ended one
            return True
        due = flow.next_time()
        until = min((at for at in (due, None if least is None else self.now() + least) if at is not None), default=None)
        if until is None and not self._out:
            waiting = "; ".join(f"{name}: {reason}" for name, reason in self._gone.items())
            hint = f"sites that left the run: {waiting}" if waiting else "do its targets exist, and can they answer often enough?"
            raise RunError("nothing can happen any more", task=flow.standing[0] if flow.standing else None, hint=hint)
        arrived = self._exchange.next(until)
        if arrived is not None:
            self._take(arrived)
        return arrived is not None or until == due

    def abort_client_tasks(self, ids: list[str]) -> None:
        """Tell the clients that have these tasks to stop."""
        for number in [number for number, (_, _, task_id, _) in self._out.items() if task_id in ids]:
            client = self._out.pop(number)[0]
            self._exchange.drop(number)
            self._idle.append(client)

    def _run_flow(self, name: str, flow: Controller) -> None:
        with self.new_context() as fl_ctx:
            fl_ctx.put(FLContextKey.WORKFLOW, name, sticky=True)
            flow.initialize_run(fl_ctx)
            self.tell(EventType.START_WORKFLOW, fl_ctx)
            try:
                flow.control_flow(self.abort_signal, fl_ctx)
            finally:
                self.tell(EventType.END_WORKFLOW, fl_ctx)
                flow.finalize_run(fl_ctx)

    def _hand_out(self, flow: Controller) -> None:
        """Let each client that is free ask, until nobody gets anything."""
        self._copies = wire.Copies()  # who is asked now is sent the same arrays, unless a callback has changed them between
        for client in list(self._idle):
            if self._stopped:
                return
            if not flow.has_task_for(client):
                continue
            with self.new_context() as fl_ctx:
                fl_ctx.set_peer_context(peer_context({"__identity_name__": client, "__run_num__": fl_ctx.get_run_number()}))
                name, task_id, data = flow.process_task_request(self._clients[client], fl_ctx)
                if data is None:
                    continue
                for key, value in ((FLContextKey.TASK_NAME, name), (FLContextKey.TASK_ID, task_id), (FLContextKey.TASK_DATA, data)):
                    fl_ctx.put(key, value)
                before, after = EventType.BEFORE_TASK_DATA_FILTER, EventType.AFTER_TASK_DATA_FILTER
                sent = Shareable(dict(data))
                sent[ReservedHeaderKey.HEADERS] = dict(data[ReservedHeaderKey.HEADERS])
                sent = self.filtered(sent, name, self.data_filters, fl_ctx, before=before, after=after)
                self._idle.remove(client)
                self._send(client, name, task_id, sent, fl_ctx.get_all_public_props())

    def _send(self, client: str, name: str, task_id: str, data: Shareable, props: dict[str, Any]) -> None:
        data.set_header(ReservedHeaderKey.WORKFLOW, self._flow_id)
        content = {"task": data, "props": props, "events": self._events_for(client)}
        message = wire.pack(content, {TASK_ID: task_id}, copy=self._copies)
        number = data.get_header("current_round")
        task = Task(name, message, number + 1 if isinstance(number, int) else 0)
        self._begun.add(client)
        self._out[self._exchange.send(task, self._slots[client])] = (client, name, task_id, self._flow_id)

    def _events_for(self, client: str) -> list[Shareable]:
        """The events that are told at a client with the next message: each once."""
        seen, self._heard[client] = self._heard.get(client, 0), len(self.pending)
        fresh = cast(list[Shareable], self.pending[seen:])
        return [each for each in fresh if (to := each.get_header(FedEventHeader.TARGETS)) is None or client in to]

    def _take(self, arrived: Arrived) -> None:
        """What came of a request."""
        client, name, task_id, flow = self._out.pop(arrived.number)
        answer = _answered(arrived.reply)
        if isinstance(answer, Failure):
            result, props = _failed(answer, client, name), {}
        else:
            result, props = answer.result, answer.props
            if answer.panic:
                self._gone[client] = answer.panic
            self.hear(answer.events, client)
        if client not in self._gone:
            self._idle.append(client)
        if self._flow is None or flow != self._flow_id:
            _LOG.info("result.dropped site=%s task=%s why=%r", client, name, "its workflow is over")
            return
        self._submit(client, name, task_id, result, {**props, "__identity_name__": client})

    def _submit(self, client: str, name: str, task_id: str, result: Shareable, props: dict[str, Any]) -> None:
        flow = cast(Controller, self._flow)
        with self.new_context() as fl_ctx:
            peer = peer_context(props)
            peer.put(FLContextKey.SHAREABLE, result)
            fl_ctx.set_peer_context(peer)
            result.set_peer_props(props)
            for key, value in ((FLContextKey.TASK_NAME, name), (FLContextKey.TASK_ID, task_id), (FLContextKey.TASK_RESULT, result)):
                fl_ctx.put(key, value)
            self.tell(EventType.BEFORE_PROCESS_SUBMISSION, fl_ctx)
            before, after = EventType.BEFORE_TASK_RESULT_FILTER, EventType.AFTER_TASK_RESULT_FILTER
            result = self.filtered(result, name, self.result_filters, fl_ctx, before=before, after=after)
            peer.put(FLContextKey.SHAREABLE, result)
            flow.process_submission(self._clients[client], name, task_id, result, fl_ctx)
            self.tell(EventType.AFTER_PROCESS_SUBMISSION, fl_ctx)

    def _end_sites(self) -> None:
        """Have END_RUN told at each site that had begun; what is still under way is dropped."""
        for number in list(self._out):
            self._exchange.drop(number)
        self._out.clear()
        for client in sorted(self._begun, key=self._slots.__getitem__):
            self._send(client, ReservedTopic.END_RUN, "", Shareable(), {})
        while self._out:
            arrived = self._exchange.next()
            if arrived is not None and arrived.number in self._out:
                client = self._out.pop(arrived.number)[0]
                if not isinstance(answer := _answered(arrived.reply), Failure):
                    self.hear(answer.events, client)


@dataclass(frozen=True)
class _Answer:
    """What a site answers: a result, what it has made public, its events, and why it leaves the run, if it does."""

    result: Shareable
    props: dict[str, Any]
    events: list[Shareable]
    panic: str


def _answered(reply: Reply) -> _Answer | Failure:
    """The parts of an answer; a failure, if there is none, or if it is not what a site of an app sends: that is no run's end."""
    if reply.failure is not None:
        return reply.failure
    try:
        found = wire.unpack(reply.shareable)
    except SpecError as error:
        return Failure(error.code, str(error), error.path)
    match found:
        case {"result": Shareable() as result, "props": dict() as props, "events": list() as events, "panic": str() as panic}:
            if all(isinstance(each, str) for each in props) and all(_sound(each) for each in (result, *events)):
                return _Answer(result, props, events, panic)
    return Failure("spec", "the answer has not the parts that a site of an app sends")


def _sound(each: object) -> bool:
    """Whether it is a message of an app: with headers, and cookies if there are any, in dicts."""
    headers = each.get(ReservedHeaderKey.HEADERS) if isinstance(each, Shareable) else None
    return isinstance(headers, dict) and isinstance(headers.get(ReservedHeaderKey.COOKIE_JAR), dict | None)


def _failed(failure: Failure, client: str, task: str) -> Shareable:
    _LOG.error("task.failed site=%s task=%s code=%s why=%r", client, task, failure.code, failure.message)
    return make_reply(_CODES.get(failure.code, ReturnCode.EXECUTION_EXCEPTION))
