"""Numbers and text that components tell while they work: sent at the site, received at the server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from hansa.compat.flare.apis.analytix import AnalyticsData, AnalyticsDataType
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_constant import EventScope, FLContextKey
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.app_event_type import AppEventType


class AnalyticsSender(FLComponent):
    """Has the methods of a TensorBoard writer. Scalars are also progress of the task, which people see while it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.engine: Any = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.START_RUN:
            self.engine = fl_ctx.get_engine()

    def add_scalar(self, tag: str, scalar: float, global_step: int | None = None, **kwargs: Any) -> None:
        value = float(scalar)
        self._track(global_step, {tag: value})
        self._add(tag, value, AnalyticsDataType.SCALAR, global_step, kwargs)

    def add_scalars(self, tag: str, scalars: dict[str, float], global_step: int | None = None, **kwargs: Any) -> None:
        values = {name: float(value) for name, value in scalars.items()}
        self._track(global_step, {f"{tag}/{name}": value for name, value in values.items()})
        self._add(tag, values, AnalyticsDataType.SCALARS, global_step, kwargs)

    def add_text(self, tag: str, text: str, global_step: int | None = None, **kwargs: Any) -> None:
        self._add(tag, text, AnalyticsDataType.TEXT, global_step, kwargs)

    def add_image(self, tag: str, image: Any, global_step: int | None = None, **kwargs: Any) -> None:
        self._add(tag, image, AnalyticsDataType.IMAGE, global_step, kwargs)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is held."""

    def _track(self, step: int | None, values: dict[str, float]) -> None:
        tracker = getattr(self.engine, "tracker", None)
        if tracker is not None:
            tracker.track(step, **values)

    def _add(self, tag: str, value: Any, kind: AnalyticsDataType, step: int | None, more: dict[str, Any]) -> None:
        given = dict(more) if step is None else {**more, "global_step": int(step)}
        said = AnalyticsData(tag, value, kind, given).to_dxo().to_shareable()
        with self.engine.new_context() as fl_ctx:
            fl_ctx.put(FLContextKey.EVENT_DATA, said)
            self.fire_event(AppEventType.ANALYTIC_EVENT_TYPE, fl_ctx)


class AnalyticsReceiver(FLComponent, ABC):
    """Saves what senders tell. `events`: which events are theirs; those of sites, and those of this place."""

    def __init__(self, events: list[str] | None = None) -> None:
        super().__init__()
        self.events = events or [AppEventType.ANALYTIC_EVENT_TYPE, f"fed.{AppEventType.ANALYTIC_EVENT_TYPE}"]

    @abstractmethod
    def initialize(self, fl_ctx: FLContext) -> None: ...

    @abstractmethod
    def save(self, fl_ctx: FLContext, shareable: Shareable, record_origin: str) -> None: ...

    @abstractmethod
    def finalize(self, fl_ctx: FLContext) -> None: ...

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.START_RUN:
            self.initialize(fl_ctx)
        elif event_type == EventType.END_RUN:
            self.finalize(fl_ctx)
        elif event_type in self.events:
            data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
            if isinstance(data, Shareable):
                federal = fl_ctx.get_prop(FLContextKey.EVENT_SCOPE) == EventScope.FEDERATION
                origin = fl_ctx.get_prop(FLContextKey.EVENT_ORIGIN_SITE) if federal else None
                self.save(fl_ctx, data, str(origin or fl_ctx.get_identity_name()))
