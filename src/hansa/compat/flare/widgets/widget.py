"""Widget: a component that acts on events."""

from __future__ import annotations

from hansa.compat.flare.apis.fl_component import FLComponent


class WidgetID:
    """Ids of widgets that others ask for."""

    INFO_COLLECTOR = "info_collector"
    COMPONENT_CALLER = "component_caller"
    FED_EVENT_RUNNER = "fed_event_runner"


class Widget(FLComponent):
    """A component that acts on events."""
