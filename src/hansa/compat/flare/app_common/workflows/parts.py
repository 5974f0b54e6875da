"""What workflows of ours have in common: components by id, and arguments that are counts."""

from __future__ import annotations

from typing import Any

from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.signal import Signal


def part(fl_ctx: FLContext, component_id: str, kind: type, what: str) -> Any:
    """The component of an id.

    Raises:
        ValueError: there is none. TypeError: it is another kind of component.
    """
    found = fl_ctx.get_engine().get_component(component_id)
    if found is None:
        raise ValueError(f"the app has no component {component_id!r}, which is to be its {what}")
    if not isinstance(found, kind):
        raise TypeError(f"component {component_id!r} is to be the {what}, a {kind.__name__}, but it is a {type(found).__name__}")
    return found


def natural(given: object, what: str, *, least: float = 0) -> None:
    """Return if it is a number that is large enough.

    Raises:
        TypeError, ValueError: it is not; names it.
    """
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise TypeError(f"{what} must be a number, but got {type(given)}")
    if given < least:
        raise ValueError(f"{what} must be >= {least}, but got {given}")


def aborted(signal: Signal) -> bool:
    """Whether the run is to end; asked anew each time."""
    return signal.triggered
