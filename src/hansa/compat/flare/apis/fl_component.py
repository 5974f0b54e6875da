"""FLComponent: what every part of an app is, so that it hears events and tells them."""

from __future__ import annotations

import logging
from typing import Any

from hansa.compat.flare.apis.analytix import AnalyticsData, AnalyticsDataType
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.fl_constant import EventScope, FLContextKey, LogMessageTag
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable


class FLComponent:
    """Hears the events of its place. A subclass need not call `super().__init__()`."""

    _name: str
    logger: logging.Logger

    def __new__(cls, *_: Any, **__: Any) -> Any:
        made = super().__new__(cls)
        made._name, made.logger = cls.__name__, logging.getLogger(cls.__name__)
        return made

    def __init__(self) -> None:
        self._name = type(self).__name__

    @property
    def name(self) -> str:
        return self._name

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """What the component does about an event."""

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Tell an event to all components of this place.

        Raises:
            TypeError: the type is no str, or the context none.
        """
        _check(event_type, fl_ctx)
        if (engine := fl_ctx.get_engine()) is not None:
            engine.fire_event(event_type, fl_ctx)

    def fire_fed_event(self, event_type: str, event_data: Shareable, fl_ctx: FLContext, targets: list[str] | None = None) -> None:
        """Tell an event here and, with the next message that goes there, at the other side: the server, or the targets (None: all).

        Raises:
            TypeError: the type is no str, or the data no Shareable.
        """
        _check(event_type, fl_ctx)
        if not isinstance(event_data, Shareable):
            raise TypeError(f"event_data must be a Shareable, but got {type(event_data)}")
        if (engine := fl_ctx.get_engine()) is None:
            return
        fl_ctx.put(FLContextKey.EVENT_DATA, event_data)
        fl_ctx.put(FLContextKey.EVENT_SCOPE, EventScope.FEDERATION)
        engine.fire_event(event_type, fl_ctx)
        fl_ctx.put(FLContextKey.EVENT_SCOPE, EventScope.LOCAL)
        engine.send_fed_event(event_type, event_data, targets)

    def system_panic(self, reason: str, fl_ctx: FLContext) -> None:
        """Ask for the end of the run."""
        fl_ctx.put(FLContextKey.EVENT_DATA, reason)
        self.fire_event(EventType.FATAL_SYSTEM_ERROR, fl_ctx)

    def task_panic(self, reason: str, fl_ctx: FLContext) -> None:
        """Say that the present task cannot be done."""
        fl_ctx.put(FLContextKey.EVENT_DATA, reason)
        self.fire_event(EventType.FATAL_TASK_ERROR, fl_ctx)

    def log_debug(self, fl_ctx: FLContext, msg: str, fire_event: bool = False) -> None:
        self._log(logging.DEBUG, LogMessageTag.DEBUG, EventType.DEBUG_LOG_AVAILABLE, fl_ctx, msg, fire_event)

    def log_info(self, fl_ctx: FLContext, msg: str, fire_event: bool = False) -> None:
        self._log(logging.INFO, LogMessageTag.INFO, EventType.INFO_LOG_AVAILABLE, fl_ctx, msg, fire_event)

    def log_warning(self, fl_ctx: FLContext, msg: str, fire_event: bool = True) -> None:
        self._log(logging.WARNING, LogMessageTag.WARNING, EventType.WARNING_LOG_AVAILABLE, fl_ctx, msg, fire_event)

    def log_error(self, fl_ctx: FLContext, msg: str, fire_event: bool = True) -> None:
        self._log(logging.ERROR, LogMessageTag.ERROR, EventType.ERROR_LOG_AVAILABLE, fl_ctx, msg, fire_event)

    def log_critical(self, fl_ctx: FLContext, msg: str, fire_event: bool = True) -> None:
        self._log(logging.CRITICAL, LogMessageTag.CRITICAL, EventType.CRITICAL_LOG_AVAILABLE, fl_ctx, msg, fire_event)

    def log_exception(self, fl_ctx: FLContext, msg: str, fire_event: bool = False) -> None:
        self._log(logging.ERROR, LogMessageTag.EXCEPTION, EventType.EXCEPTION_LOG_AVAILABLE, fl_ctx, msg, fire_event, trace=True)

    def _log(self, level: int, tag: str, event: str, fl_ctx: FLContext, msg: str, fire: bool, *, trace: bool = False) -> None:
        where = {"identity": fl_ctx.get_identity_name(), "run": fl_ctx.get_run_number()}
        text = "[" + ", ".join(f"{name}={value}" for name, value in where.items()) + f"]: {msg}"
        self.logger.log(level, text, exc_info=trace)
        if fire:
            said = AnalyticsData(tag, msg, AnalyticsDataType.TEXT).to_dxo().to_shareable()
            fl_ctx.put(FLContextKey.EVENT_DATA, said)
            self.fire_event(event, fl_ctx)


def _check(event_type: object, fl_ctx: object) -> None:
    if not isinstance(event_type, str):
        raise TypeError(f"expected event_type to be a str, but got {type(event_type)}")
    if not isinstance(fl_ctx, FLContext):
        raise TypeError(f"expected fl_ctx to be an FLContext, but got {type(fl_ctx)}")
