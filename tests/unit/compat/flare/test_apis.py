from __future__ import annotations

import logging
from typing import Any

import pytest

from hansa.compat.flare.apis.analytix import AnalyticsData, AnalyticsDataType
from hansa.compat.flare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_constant import FLContextKey, ReservedKey, ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext, FLContextManager
from hansa.compat.flare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from hansa.compat.flare.apis.signal import Signal


def test_a_shareable_holds_headers_a_return_code_cookies_and_what_the_peer_says() -> None:
    reply = make_reply(ReturnCode.TASK_UNKNOWN)
    assert (reply.get_return_code(), Shareable().get_return_code()) == ("TASK_UNKNOWN", "OK")
    assert (reply.get_cookie("x", 7), reply.get_peer_prop("name", "?"), reply.get_header("none")) == (7, "?", None)
    reply.add_cookie("round", 3)
    reply.set_peer_props({"name": "site-1"})
    assert (reply.get_cookie("round"), reply.get_cookie_jar(), reply.get_peer_prop("name", "?")) == (3, {"round": 3}, "site-1")
    assert ReservedHeaderKey.COOKIE_JAR in reply["__headers__"]


def test_a_dxo_goes_into_a_shareable_and_out_of_it_by_reference() -> None:
    data = {"w": 1}
    dxo = DXO(DataKind.WEIGHT_DIFF, data, {MetaKey.NUM_STEPS_CURRENT_ROUND: 5})
    found = from_shareable(dxo.to_shareable())
    assert (found.data is data, found.data_kind, found.get_meta_prop("NUM_STEPS_CURRENT_ROUND")) == (True, "WEIGHT_DIFF", 5)
    found.update_meta_props({"initial_metrics": 0.5})
    found.remove_meta_props(["NUM_STEPS_CURRENT_ROUND", "no such"])
    assert dxo.get_meta_props() == {"initial_metrics": 0.5}
    for wrong in (Shareable(), _with(content="other"), _with(content="DXO")):
        with pytest.raises(ValueError, match="shareable"):
            from_shareable(wrong)
    bad: Any = [1]
    with pytest.raises(ValueError, match="invalid DXO: data must be a dict"):
        DXO(DataKind.WEIGHTS, bad)


def _with(content: str) -> Shareable:
    made = Shareable()
    made.set_header(ReservedHeaderKey.CONTENT_TYPE, content)
    return made


def test_sticky_props_are_seen_by_later_contexts_and_public_ones_are_what_the_peer_gets() -> None:
    manager = FLContextManager(None, "site-1", 4)
    with manager.new_context() as first:
        assert first.set_prop("model", "m", private=True, sticky=True)
        assert first.set_prop("once", 1, private=True, sticky=False)
        assert first.set_prop("shown", 2, private=False, sticky=True)
    later = manager.new_context()
    assert (later.get_prop("model"), later.get_prop("once"), later.get_run_number()) == ("m", None, 4)
    assert later.get_all_public_props() == {"__run_num__": 4, "__identity_name__": "site-1", "shown": 2}
    assert later.clone_sticky().get_prop("model") == "m"


def test_a_prop_keeps_its_mask_and_its_value_when_it_is_set_with_another(caplog: pytest.LogCaptureFixture) -> None:
    ctx = FLContext()
    ctx.set_prop("x", 1, private=True, sticky=False)
    with caplog.at_level(logging.WARNING):
        assert ctx.set_prop("x", 2, private=False, sticky=False) is False
    assert (ctx.get_prop("x"), "prop.kept key=x" in caplog.text) == (1, True)
    assert ctx.get_prop_detail("x") == {"value": 1, "private": True, "sticky": False}
    ctx.put(ReservedKey.ENGINE, "e")
    ctx.remove_prop(ReservedKey.ENGINE)
    ctx.remove_prop("x")
    assert (ctx.get_engine(), ctx.get_prop("x")) == ("e", None)
    wrong: Any = 3
    with pytest.raises(ValueError, match="prop key"):
        ctx.set_prop(wrong, 1)
    with pytest.raises(ValueError, match="manager"):
        ctx.sync_sticky()


def test_two_contexts_of_one_place_see_each_other_s_sticky_props_after_a_sync() -> None:
    manager = FLContextManager(None, "server", 1)
    long, short = manager.new_context(), manager.new_context()
    short.set_prop("model", 1)
    manager.finalize_context(short)
    assert long.get_prop("model") is None
    long.sync_sticky()
    assert long.get_prop("model") == 1
    long.set_prop("model", 2)
    long.sync_sticky()
    assert manager.new_context().get_prop("model") == 2


class Careless(FLComponent):
    """Never calls super().__init__()."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        self.heard.append((event_type, fl_ctx.get_prop(FLContextKey.EVENT_DATA)))


class Engine:
    """Passes events to one component."""

    def __init__(self, component: FLComponent) -> None:
        self._component = component

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        self._component.handle_event(event_type, fl_ctx)


def test_a_component_that_never_called_its_parent_logs_tells_events_and_panics(caplog: pytest.LogCaptureFixture) -> None:
    component = Careless()
    ctx = FLContextManager(Engine(component), "site-1", 1).new_context()
    with caplog.at_level(logging.INFO):
        component.log_info(ctx, "quiet")
        component.log_error(ctx, "loud")
    assert "[identity=site-1, run=1]: loud" in caplog.text
    component.system_panic("no data", ctx)
    (event, said), (panic, reason) = component.heard
    told = AnalyticsData.from_dxo(from_shareable(said))
    assert told is not None
    assert (event, told.tag, told.value) == (EventType.ERROR_LOG_AVAILABLE, "log/error", "loud")
    assert (panic, reason) == ("_fatal_system_error", "no data")
    assert (component.name, component.logger.name) == ("Careless", "Careless")


def test_analytics_are_of_the_type_that_they_say() -> None:
    assert AnalyticsData.from_dxo(DXO(DataKind.METRICS, {})) is None
    for value, kind in ((1, AnalyticsDataType.SCALAR), ("x", AnalyticsDataType.SCALARS), (1.0, AnalyticsDataType.TEXT)):
        with pytest.raises(TypeError, match="value of a"):
            AnalyticsData("tag", value, kind)


def test_a_signal_is_three_plain_attributes() -> None:
    signal = Signal()
    assert (signal.value, signal.trigger_time, signal.triggered) == (None, None, False)
    signal.trigger("stop")
    assert (signal.value, signal.triggered, signal.trigger_time is not None) == ("stop", True, True)
    signal.reset()
    assert signal.__dict__ == {"value": None, "trigger_time": None, "triggered": False}
