"""DXO: data with its kind and meta, as components exchange them."""

from __future__ import annotations

import copy
from typing import Any

from hansa.compat.flare.apis.shareable import ReservedHeaderKey, Shareable

_DXO = "DXO"


class DataKind:
    """What the data of a DXO are."""

    WEIGHTS = "WEIGHTS"
    WEIGHT_DIFF = "WEIGHT_DIFF"
    METRICS = "METRICS"
    MODEL = "MODEL"
    ANALYTIC = "ANALYTIC"
    COLLECTION = "COLLECTION"
    STATISTICS = "STATISTICS"


class MetaKey:
    """Names of what a DXO says of its data."""

    NUM_STEPS_CURRENT_ROUND = "NUM_STEPS_CURRENT_ROUND"
    MODEL_OWNER = "MODEL_OWNER"
    PROCESSED_ALGORITHM = "PROCESSED_ALGORITHM"
    PROCESSED_KEYS = "PROCESSED_KEYS"
    INITIAL_METRICS = "initial_metrics"
    FILTER_HISTORY = "filter_history"


class DXO:
    """Data of one kind, with meta. The data are kept by reference."""

    def __init__(self, data_kind: str, data: dict[str, Any] | None = None, meta: dict[str, Any] | None = None) -> None:
        self.data_kind = data_kind
        self.data: dict[str, Any] = {} if data is None else data
        self.meta: dict[str, Any] = {} if meta is None else meta
        if error := self.validate():
            raise ValueError(f"invalid DXO: {error}")

    def get_meta_prop(self, key: str, default: Any = None) -> Any:
        return self.meta.get(key, default)

    def set_meta_prop(self, key: str, value: Any) -> None:
        self.meta[key] = value

    def remove_meta_props(self, keys: list[str]) -> None:
        for key in keys:
            self.meta.pop(key, None)

    def get_meta_props(self) -> dict[str, Any]:
        return self.meta

    def update_meta_props(self, meta: dict[str, Any]) -> None:
        self.meta.update(copy.deepcopy(meta))

    def update_shareable(self, s: Shareable) -> Shareable:
        """The shareable, with this DXO as its content."""
        s.set_header(ReservedHeaderKey.CONTENT_TYPE, _DXO)
        s[_DXO] = {"kind": self.data_kind, "data": self.data, "meta": self.meta}
        return s

    def to_shareable(self) -> Shareable:
        """A new shareable with this DXO as its content."""
        return self.update_shareable(Shareable())

    def to_bytes(self) -> bytes:
        """The DXO as bytes, by our own codec.

        Raises:
            SpecError: something in it is no array, number, text or container of them; names its path.
        """
        from hansa.compat.flare import wire

        return wire.to_bytes(self)

    def validate(self) -> str:
        """What is wrong with it; empty if nothing is."""
        parts: dict[str, object] = {"data": self.data, "meta": self.meta}
        wrong = [f"{name} must be a dict, but got {type(each)}" for name, each in parts.items() if not isinstance(each, dict)]
        return "; ".join(wrong)


def from_shareable(s: Shareable) -> DXO:
    """The DXO in a shareable.

    Raises:
        ValueError: there is none.
    """
    content = s.get_header(ReservedHeaderKey.CONTENT_TYPE)
    if content != _DXO:
        raise ValueError(f"the shareable's content type is {content!r}, not {_DXO!r}")
    found = s.get(_DXO)
    if not isinstance(found, dict):
        raise ValueError(f"the shareable has no DXO, but a {type(found).__name__}")
    return DXO(found.get("kind", ""), found.get("data"), found.get("meta"))


def from_bytes(data: bytes) -> DXO:
    """The DXO that `to_bytes` wrote.

    Raises:
        ValueError: it is something else. SpecError: it is no such message.
    """
    from hansa.compat.flare import wire

    found = wire.from_bytes(data)
    if not isinstance(found, DXO):
        raise ValueError(f"not a DXO, but a {type(found).__name__}")
    return found
