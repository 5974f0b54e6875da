"""Shareable: the dict that goes to a site and comes back, with headers."""

from __future__ import annotations

from typing import Any, cast

from hansa.compat.flare.apis.fl_constant import ReturnCode


class ReservedHeaderKey:
    """Names of headers that the framework sets."""

    HEADERS = "__headers__"
    TOPIC = "__topic__"
    RC = "__rc__"
    COOKIE_JAR = "__cookie_jar__"
    PEER_PROPS = "__peer_props__"
    REPLY_IS_LATE = "__reply_is_late__"
    TASK_NAME = "__task_name__"
    TASK_ID = "__task_id__"
    WORKFLOW = "__workflow__"
    CONTENT_TYPE = "__content_type__"


class Shareable(dict[Any, Any]):
    """A dict with headers, among them a return code, cookies and what the peer says of itself."""

    def __init__(self, data: dict[Any, Any] | None = None) -> None:
        super().__init__(data or {})
        self.setdefault(ReservedHeaderKey.HEADERS, {})

    def set_header(self, key: str, value: Any) -> None:
        self._headers()[key] = value

    def get_header(self, key: str, default: Any = None) -> Any:
        return self._headers().get(key, default)

    def get_return_code(self, default: str = ReturnCode.OK) -> Any:
        return self.get_header(ReservedHeaderKey.RC, default)

    def set_return_code(self, rc: str) -> None:
        self.set_header(ReservedHeaderKey.RC, rc)

    def add_cookie(self, name: str, data: Any) -> None:
        """Set a cookie: what the server sets on a task comes back with its result."""
        jar = self.get_cookie_jar()
        if not jar:
            jar = {}
            self.set_cookie_jar(jar)
        jar[name] = data

    def get_cookie_jar(self) -> Any:
        return self.get_header(ReservedHeaderKey.COOKIE_JAR)

    def set_cookie_jar(self, jar: Any) -> None:
        self.set_header(ReservedHeaderKey.COOKIE_JAR, jar)

    def get_cookie(self, name: str, default: Any = None) -> Any:
        jar = self.get_cookie_jar()
        return jar.get(name, default) if jar else default

    def set_peer_props(self, props: dict[str, Any]) -> None:
        self.set_header(ReservedHeaderKey.PEER_PROPS, props)

    def get_peer_props(self) -> Any:
        return self.get_header(ReservedHeaderKey.PEER_PROPS)

    def get_peer_prop(self, key: str, default: Any = None) -> Any:
        props = self.get_peer_props()
        return props.get(key, default) if isinstance(props, dict) else default

    def to_bytes(self) -> bytes:
        """The shareable as bytes, by our own codec.

        Raises:
            SpecError: something in it is no array, number, text or container of them; names its path.
        """
        from hansa.compat.flare import wire

        return wire.to_bytes(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Any:
        """What `to_bytes` wrote.

        Raises:
            SpecError: it is no such message.
        """
        from hansa.compat.flare import wire

        return wire.from_bytes(data)

    def _headers(self) -> dict[str, Any]:
        return cast(dict[str, Any], self.setdefault(ReservedHeaderKey.HEADERS, {}))


def make_reply(rc: str, headers: dict[str, Any] | None = None) -> Shareable:
    """A shareable without content, that says how it went."""
    reply = Shareable()
    for key, value in (headers or {}).items():
        reply.set_header(key, value)
    reply.set_return_code(rc)
    return reply
