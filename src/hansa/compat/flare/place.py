"""One place of a run, the server or a site: its components, contexts, events and folders."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hansa.compat.flare.apis.engine_spec import EngineSpec
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.filter import Filter
from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_constant import EventScope, FedEventHeader, FLContextKey
from hansa.compat.flare.apis.fl_context import FLContext, FLContextManager
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.apis.signal import Signal
from hansa.compat.flare.apis.workspace import Workspace
from hansa.compat.flare.app import App, Side
from hansa.compat.flare.build import Builder
from hansa.files import storage_error

RUN_NUMBER: Final = 1
SERVER: Final = "server"
_PARTS: Final = ("config", "custom", "resources")
_OWN: Final = frozenset(
    str(each) for name, each in vars(EventType).items() if name.isupper() and not name.endswith("_LOG_AVAILABLE")
)  # begin, end and stop a run, and its tasks
_LOG: Final = logging.getLogger("hansa.flare")


class Place(EngineSpec):
    """What is common to both sides. `handlers` hear each event, in the order in which they were made, then what the place does.

    seed: where the global generators began when this place was made.
    """

    def __init__(self, app: App, side: Side, name: str, root: Path, seed: int, more: Mapping[str, Any] | None = None) -> None:
        self.app, self.name = app, name
        self.workspace = Workspace(str(root), name)
        _deploy(app.folder, Path(self.workspace.get_app_dir(RUN_NUMBER)))
        self.builder = Builder(app.folder / "custom", seed)
        self.components: dict[str, Any] = {each.id: self.builder.part(each) for each in side.components}
        self.data_filters = self.builder.chains(side.data_filters)
        self.result_filters = self.builder.chains(side.result_filters)
        self.abort_signal = Signal()
        self.pending: list[dict[str, Any]] = []  # events for the other side
        private = {
            FLContextKey.WORKSPACE_ROOT: str(root),
            FLContextKey.WORKSPACE_OBJECT: self.workspace,
            FLContextKey.APP_ROOT: self.workspace.get_app_dir(RUN_NUMBER),
            FLContextKey.RUN_ABORT_SIGNAL: self.abort_signal,
            FLContextKey.RUNNER: self,
            FLContextKey.SECURE_MODE: False,
            FLContextKey.ARGS: None,
            **(more or {}),
        }
        if name != SERVER:
            private[FLContextKey.CLIENT_NAME] = name
        self.contexts = FLContextManager(self, name, RUN_NUMBER, {}, private)

    @property
    def handlers(self) -> Sequence[FLComponent]:
        """All components of this place."""
        return self.builder.handlers

    def new_context(self) -> FLContext:
        return self.contexts.new_context()

    def get_workspace(self) -> Workspace:
        return self.workspace

    def get_component(self, component_id: str) -> Any:
        return self.components.get(component_id)

    get_widget = get_component

    def get_all_components(self) -> dict[str, Any]:
        return dict(self.components)

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Tell an event to all components here."""
        data, scope = fl_ctx.get_prop(FLContextKey.EVENT_DATA), fl_ctx.get_prop(FLContextKey.EVENT_SCOPE, EventScope.LOCAL)
        fl_ctx.put(FLContextKey.EVENT_SCOPE, scope)
        fl_ctx.put(FLContextKey.EVENT_ORIGIN, self.name)
        for each in list(self.handlers):
            fl_ctx.put(FLContextKey.EVENT_DATA, data)  # a handler may have told an event of its own meanwhile
            fl_ctx.put(FLContextKey.EVENT_SCOPE, scope)
            each.handle_event(event_type, fl_ctx)
        if event_type == EventType.FATAL_SYSTEM_ERROR:
            self.panic(str(data))

    def panic(self, reason: str) -> None:
        """Somebody here cannot go on."""
        raise NotImplementedError

    def tell(self, event_type: str, fl_ctx: FLContext | None = None) -> None:
        """An event of the framework's own."""
        if fl_ctx is not None:
            fl_ctx.put(FLContextKey.EVENT_SCOPE, EventScope.LOCAL)
            self.fire_event(event_type, fl_ctx)
            return
        with self.new_context() as made:
            self.fire_event(event_type, made)

    def send_fed_event(self, event_type: str, event_data: Shareable, targets: Sequence[str] | None = None) -> None:
        """Have an event told at the other side, with the next message there."""
        sent = Shareable(dict(event_data))
        sent["__headers__"] = dict(event_data.get("__headers__", {}))
        for key, value in (
            (FedEventHeader.EVENT_TYPE, event_type),
            (FedEventHeader.ORIGIN, self.name),
            (FedEventHeader.TIMESTAMP, self.time()),
            (FedEventHeader.TARGETS, list(targets) if targets is not None else None),
        ):
            sent.set_header(key, value)
        self.pending.append(sent)

    def time(self) -> float:
        """Seconds, for what is told to others."""
        return time.time()

    def hear(self, events: Sequence[Shareable], origin: str) -> None:
        """Tell events here that came from another place; those by which the framework itself goes happen here or not at all."""
        for each in events:
            name = str(each.get_header(FedEventHeader.EVENT_TYPE))
            if name in _OWN:
                _LOG.warning("event.refused event=%s origin=%s why=%r", name, origin, "the framework's own")
                continue
            with self.new_context() as fl_ctx:
                fl_ctx.put(FLContextKey.EVENT_DATA, each)
                fl_ctx.put(FLContextKey.EVENT_SCOPE, EventScope.FEDERATION)
                fl_ctx.put(FLContextKey.EVENT_ORIGIN_SITE, origin)
                peer = FLContext()
                peer.put("__identity_name__", origin, private=False)
                fl_ctx.set_peer_context(peer)
                self.fire_event(name, fl_ctx)

    def filtered(self, result: Shareable, task: str, chains: Any, fl_ctx: FLContext, *, before: str, after: str) -> Shareable:
        """What goes on after the filters of a task, with the events around them. Raises what a filter raises."""
        self.tell(before, fl_ctx)
        for tasks, filters in chains:
            if task in tasks:
                for each in filters:
                    result = _step(each, result, fl_ctx)
        self.tell(after, fl_ctx)
        return result


@contextlib.contextmanager
def logged(file: Path) -> Iterator[None]:
    """While it lasts, what components log, from INFO on, is written into a file as well."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handler, root = logging.FileHandler(file, encoding="utf-8"), logging.getLogger()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO))
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()


def peer_context(props: Mapping[str, Any]) -> FLContext:
    """The context that stands for a peer: what it has made public."""
    made = FLContext()
    made.set_public_props(dict(props))
    return made


def _step(each: Filter, given: Shareable, fl_ctx: FLContext) -> Shareable:
    made: object = each.process(given, fl_ctx)
    if not isinstance(made, Shareable):
        raise TypeError(f"filter {type(each).__name__} must give a Shareable, but gave {type(made)}")
    return made


def _deploy(app: Path, target: Path) -> None:
    """Put the app's files where components look for them."""
    try:
        for name in _PARTS:
            if (app / name).is_dir() and not (target / name).exists():
                shutil.copytree(app / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, target) from error
