"""ConvertToFedEvent: some local events are told at the other side, too."""

from __future__ import annotations

from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_constant import EventScope, FLContextKey
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable


class ConvertToFedEvent(FLComponent):
    """Tells the named events there with a prefix: `analytix_log_stats` as `fed.analytix_log_stats`."""

    def __init__(self, events_to_convert: list[str], fed_event_prefix: str = "fed.") -> None:
        super().__init__()
        if not isinstance(events_to_convert, list) or not all(isinstance(each, str) for each in events_to_convert):
            raise TypeError(f"events_to_convert must be a list of str, but got {events_to_convert!r}")
        self.events_to_convert, self.fed_event_prefix = events_to_convert, fed_event_prefix

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        local = fl_ctx.get_prop(FLContextKey.EVENT_SCOPE, EventScope.LOCAL) == EventScope.LOCAL
        if event_type in self.events_to_convert and local and isinstance(data, Shareable):
            self.fire_fed_event(self.fed_event_prefix + event_type, data, fl_ctx)
