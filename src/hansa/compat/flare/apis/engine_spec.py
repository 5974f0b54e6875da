"""What components of either side may ask of the framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NoReturn

from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.apis.workspace import Workspace
from hansa.errors import InputError


class EngineSpec(ABC):
    """The framework at one place, as `fl_ctx.get_engine()` gives it."""

    @abstractmethod
    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None: ...

    @abstractmethod
    def send_fed_event(self, event_type: str, event_data: Shareable, targets: list[str] | None = None) -> None: ...

    @abstractmethod
    def new_context(self) -> FLContext: ...

    @abstractmethod
    def get_workspace(self) -> Workspace: ...

    @abstractmethod
    def get_component(self, component_id: str) -> Any: ...

    def send_aux_request(self, *args: Any, **kwargs: Any) -> NoReturn:
        """There are no messages beside tasks.

        Raises:
            InputError: always; says what there is instead.
        """
        _no_messages("send_aux_request", args, kwargs)

    def fire_and_forget_aux_request(self, *args: Any, **kwargs: Any) -> NoReturn:
        """As `send_aux_request`."""
        _no_messages("fire_and_forget_aux_request", args, kwargs)

    def register_aux_message_handler(self, *args: Any, **kwargs: Any) -> NoReturn:
        """As `send_aux_request`."""
        _no_messages("register_aux_message_handler", args, kwargs)


def _no_messages(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
    topic = kwargs.get("topic", next((each for each in args if isinstance(each, str)), None))
    hint = "fire_fed_event(...) travels with the next task or result; a task of its own asks at once"
    raise InputError("there are no messages beside tasks here", path=name, got=f"topic {topic!r}", hint=hint)
