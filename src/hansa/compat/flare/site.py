"""The app at a site: one executor of ours, that runs the app's own with filters and events around it."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import traceback
from pathlib import Path
from typing import Any, Final

from hansa.compat.flare import wire
from hansa.compat.flare.apis.client_engine_spec import ClientEngineSpec
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.executor import Executor
from hansa.compat.flare.apis.fl_constant import FLContextKey, ReservedTopic, ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from hansa.compat.flare.apis.signal import Signal
from hansa.compat.flare.app import App
from hansa.compat.flare.mapping import mapped
from hansa.compat.flare.place import Place, peer_context
from hansa.compat.flare.seeds import one_thread, seed_all
from hansa.core import executor as ours
from hansa.core import task as core
from hansa.errors import ConfigError

TASK_ID: Final = "task_id"  # a plain header of the message
DATA_ROOT: Final = "data_root"  # the prop with what the site's [data] gives for the label `flare`: a path, as a rule
_LOG: Final = logging.getLogger("hansa.flare")


class AppExecutor(ours.Executor):
    """Serves the tasks of an app. Each site of this process has components of its own, made when it gets its first task.

    workspace: where sites have their folders (None: one that is gone with the process).
    """

    def __init__(self, app: App, workspace: Path | None = None) -> None:
        self._app, self._workspace = app, workspace
        self._sites: dict[int, Site] = {}
        self._held = contextlib.ExitStack()

    def __repr__(self) -> str:
        return f"FLARE app {self._app.name}"

    def execute(
        self, task_name: str, shareable: core.Shareable, fl_ctx: core.FLContext, abort_signal: core.Signal
    ) -> core.Shareable:
        """The site's result of a task; what went wrong within the app is its return code."""
        if not self._sites:
            self._held.enter_context(mapped(self._app.folder / "custom"))
        site = self._sites.get(fl_ctx.slot)
        seed = seed_all(fl_ctx.rng(f"flare/{task_name}"))
        if site is None:
            root = self._root() / fl_ctx.site
            site = self._sites[fl_ctx.slot] = Site(self._app, fl_ctx.site, root, seed, fl_ctx.load(fl_ctx.data))
        given, headers = wire.unpack(shareable), shareable.headers
        with one_thread():
            answer = site.serve(task_name, str(headers.get(TASK_ID, "")), given, Linked(abort_signal), fl_ctx)
        return wire.pack(answer)

    def close(self) -> None:
        """Forget the app's code."""
        self._sites.clear()
        self._held.close()

    def _root(self) -> Path:
        if self._workspace is None:
            self._workspace = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="flare-")))
        return self._workspace


class Linked(Signal):
    """The signal of a task: triggered when ours is."""

    def __init__(self, signal: core.Signal) -> None:
        self._ours = signal
        super().__init__()

    @property
    def triggered(self) -> bool:  # an attribute, to those who read it
        return self._own or self._ours.triggered

    @triggered.setter
    def triggered(self, value: bool) -> None:
        self._own = value


class Site(Place, ClientEngineSpec):
    """One site of the run."""

    def __init__(self, app: App, name: str, root: Path, seed: int, data: Any = None) -> None:
        super().__init__(app, app.client, name, root, seed, {DATA_ROOT: data})
        self._executors: dict[str, Executor] = {}
        for each in app.client.executors:
            made = self.builder.part(each.executor)
            if not isinstance(made, Executor):
                raise ConfigError("not an executor", path=each.executor.where, got=type(made).__name__)
            self._executors |= dict.fromkeys(each.tasks, made)
        self._broken = ""
        self.tracker: core.FLContext | None = None
        self.tell(EventType.ABOUT_TO_START_RUN)
        self.tell(EventType.START_RUN)

    def panic(self, reason: str) -> None:
        """This site does nothing any more in this run."""
        self._broken = self._broken or reason
        self.abort_signal.trigger(reason)

    def serve(
        self, name: str, task_id: str, given: dict[str, Any], abort_signal: Signal, tracker: core.FLContext
    ) -> dict[str, Any]:
        """The result of a task, what this site has made public, and its events for the server."""
        self.tracker = tracker
        self.hear(given["events"], "server")
        with self.new_context() as fl_ctx:
            fl_ctx.set_peer_context(peer_context(given["props"]))
            if name == ReservedTopic.END_RUN:
                self.tell(EventType.ABOUT_TO_END_RUN, fl_ctx)
                self.tell(EventType.END_RUN, fl_ctx)
                result = make_reply(ReturnCode.OK)
            else:
                self.tell(EventType.BEFORE_PULL_TASK, fl_ctx)
                self.tell(EventType.AFTER_PULL_TASK, fl_ctx)
                result = self._done(name, task_id, given["task"], abort_signal, fl_ctx)
            props = fl_ctx.get_all_public_props()
        events, self.pending = self.pending, []
        return {"result": result, "props": props, "events": events, "panic": self._broken}

    def _done(self, name: str, task_id: str, data: Shareable, abort_signal: Signal, fl_ctx: FLContext) -> Shareable:
        jar = data.get_cookie_jar()
        for key, value in ((FLContextKey.TASK_NAME, name), (FLContextKey.TASK_ID, task_id), (FLContextKey.TASK_DATA, data)):
            fl_ctx.put(key, value)
        result = self._result(name, data, abort_signal, fl_ctx)
        for header, stamp in (
            (ReservedHeaderKey.TASK_NAME, name),
            (ReservedHeaderKey.TASK_ID, task_id),
            (ReservedHeaderKey.WORKFLOW, data.get_header(ReservedHeaderKey.WORKFLOW)),
            (ReservedHeaderKey.COOKIE_JAR, jar),
        ):
            if stamp is not None:
                result.set_header(header, stamp)
        fl_ctx.put(FLContextKey.TASK_RESULT, result)
        self.tell(EventType.BEFORE_SEND_TASK_RESULT, fl_ctx)
        self.tell(EventType.AFTER_SEND_TASK_RESULT, fl_ctx)
        return result

    def _result(self, name: str, data: Shareable, abort_signal: Signal, fl_ctx: FLContext) -> Shareable:
        """The executor's result with filters around it. This is the app's outermost call: what it raises is a return code."""
        if self._broken:
            return make_reply(ReturnCode.TASK_ABORTED)
        executor = self._executors.get(name) or self._executors.get("*")
        if executor is None:
            _LOG.error("task.unknown site=%s task=%s known=%s", self.name, name, sorted(self._executors))
            return make_reply(ReturnCode.TASK_UNKNOWN)
        failed = ReturnCode.TASK_DATA_FILTER_ERROR
        try:
            before, after = EventType.BEFORE_TASK_DATA_FILTER, EventType.AFTER_TASK_DATA_FILTER
            data = self.filtered(data, name, self.data_filters, fl_ctx, before=before, after=after)
            fl_ctx.put(FLContextKey.TASK_DATA, data)
            failed = ReturnCode.EXECUTION_EXCEPTION
            self.tell(EventType.BEFORE_TASK_EXECUTION, fl_ctx)
            result: object = executor.execute(name, data, fl_ctx, abort_signal)
            fl_ctx.put(FLContextKey.TASK_RESULT, result)
            self.tell(EventType.AFTER_TASK_EXECUTION, fl_ctx)
            if abort_signal.triggered:
                return make_reply(ReturnCode.TASK_ABORTED)
            if not isinstance(result, Shareable):
                _LOG.error("result.wrong site=%s task=%s got=%s", self.name, name, type(result).__name__)
                return make_reply(ReturnCode.EXECUTION_RESULT_ERROR)
            failed = ReturnCode.TASK_RESULT_FILTER_ERROR
            before, after = EventType.BEFORE_TASK_RESULT_FILTER, EventType.AFTER_TASK_RESULT_FILTER
            result = self.filtered(result, name, self.result_filters, fl_ctx, before=before, after=after)
            wire.pack(result)  # what cannot be sent is the executor's error, named in the site's log
            return result
        except core.Aborted:
            raise
        except Exception as error:
            _LOG.error("task.failed site=%s task=%s code=%s\n%s", self.name, name, failed, traceback.format_exc().rstrip())
            if failed == ReturnCode.EXECUTION_EXCEPTION and isinstance(error, RuntimeError):
                self.panic(f"{type(error).__name__}: {error}")  # FLARE's rule: the site leaves the run
            return make_reply(failed)
